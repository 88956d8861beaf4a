"""Where the threads of this very process wait."""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tasks.profiling import waits as module
from tasks.profiling.formats import FORMATS
from tasks.profiling.kernel import Task
from tasks.profiling.profile import Frame, Profile
from tasks.profiling.waits import (
    DISK,
    INTERPRETER,
    KINDS,
    LAG,
    LOCK,
    POLL,
    READY,
    RUNS,
    SAMPLER,
    SLEEP,
    TOLD,
    text,
    waits,
)
from tests.support.waiting import until

MOMENT_S = 0.5


@contextmanager
def threads(*works: Callable[[], object]) -> Iterator[None]:
    """Run functions in threads of their own; they have to end by themselves once the block has."""
    started = [threading.Thread(target=each) for each in works]
    for each in started:
        each.start()
    try:
        yield
    finally:
        for each in started:
            each.join()


def spent(profile: Profile, function: str) -> dict[str, float]:
    """Give the seconds of each state of the stacks that a function is in."""
    found: dict[str, float] = {}
    for (root, *stack), (_, spent_ns) in profile.stacks.items():
        if any(each.function.endswith(function) for each in stack):
            found[root.function] = found.get(root.function, 0.0) + spent_ns / 1e9
    return found


def mostly(profile: Profile, function: str) -> str:
    """Give the state that a function was blocked in for longest; a machine that is busy leaves it ready for long."""
    times = {state: spent_s for state, spent_s in spent(profile, function).items() if state not in (RUNS, READY)}
    return max(times, key=times.__getitem__, default="")


def seen(good: Callable[[Profile], bool]) -> Profile:
    """Give the first report that is as it should be: the threads may not have come to where they wait yet."""
    return until(lambda: found if good(found := waits(MOMENT_S)) else None, what="such a report")


def test_a_thread_that_waits_for_a_lock_is_told_from_one_that_waits_for_an_event() -> None:
    lock, ended = threading.Lock(), threading.Event()

    def takes_a_lock() -> None:
        with lock:
            pass

    def awaits_an_event() -> None:
        ended.wait(60)

    def is_told(report: Profile) -> bool:
        return (mostly(report, "takes_a_lock"), mostly(report, "awaits_an_event")) == (LOCK, TOLD)

    lock.acquire()
    with threads(takes_a_lock, awaits_an_event):
        try:
            found = seen(is_told)
        finally:
            lock.release()
            ended.set()
    assert f"takes_a_lock (unit/profiling/{Path(__file__).name}:" in text(found).decode()


def test_threads_that_compute_wait_for_a_cpu_or_for_the_interpreter() -> None:
    ended = threading.Event()

    def computes() -> None:
        while not ended.is_set():
            sum(range(1000))

    def shows_it(report: Profile) -> bool:
        times = spent(report, "computes")
        steps = {stack[1].function for stack in report.stacks if stack[0].function == SAMPLER}
        return times.keys() >= {RUNS, INTERPRETER} and bool(steps - {"up to 0.2 ms"})

    with threads(computes, computes, computes):
        try:
            found = seen(shows_it)
        finally:
            ended.set()
    times = spent(found, "computes")
    assert mostly(found, "computes") == INTERPRETER
    others = sum(spent_s for state, spent_s in times.items() if state not in (RUNS, READY, INTERPRETER))
    assert others < times[RUNS] + times.get(READY, 0.0) + times[INTERPRETER]


def test_a_thread_that_waits_alone_does_not_wait_for_the_interpreter() -> None:
    ended, nap = threading.Event(), partial(time.sleep, 0.05)  # what is watched, not what the test waits by
    readable, writable = os.pipe()

    def sleeps() -> None:
        while not ended.is_set():
            nap()

    def polls() -> None:
        poller = select.poll()
        poller.register(readable, select.POLLIN)
        poller.poll()

    def is_told(report: Profile) -> bool:
        return (mostly(report, "sleeps"), mostly(report, "polls")) == (SLEEP, POLL)

    with threads(sleeps, polls):
        try:
            seen(is_told)
        finally:
            ended.set()
            os.write(writable, b"x")
    os.close(readable)
    os.close(writable)


def test_a_call_in_c_that_holds_the_interpreter_shows_in_how_long_the_sampler_waits() -> None:
    ended = threading.Event()

    def seizes() -> None:
        while not ended.is_set():
            sum(range(3_000_000))

    def waits_long(report: Profile) -> bool:
        waited = [values for stack, values in report.stacks.items() if stack[0].function == SAMPLER]
        mean_ns = sum(spent_ns for _, spent_ns in waited) / sum(times for times, _ in waited)
        return mean_ns > 5e6  # which is after how long Python code gives way

    with threads(seizes):
        try:
            seen(waits_long)
        finally:
            ended.set()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_begins_and_ends_meanwhile_leaves_no_descriptor() -> None:
    before = descriptors()
    ended = threading.Event()

    def begins_others() -> None:
        while not ended.is_set():
            with threads(lambda: None, lambda: None):
                pass

    with threads(begins_others):
        waits(MOMENT_S)
        ended.set()
    until(lambda: descriptors() <= before)


def test_a_thread_that_ends_as_it_is_begun_with_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, args=(60,))
    thread.start()

    class Ends(Task):
        def __init__(self, task_id: int) -> None:
            super().__init__(task_id)
            if task_id == thread.native_id:
                ended.set()
                thread.join()
                until(lambda: not Path(f"/proc/self/task/{task_id}").exists())

    monkeypatch.setattr(module, "Task", Ends)
    before = descriptors()
    waits(0.05)
    assert ended.is_set()
    until(lambda: descriptors() <= before, 5)


def test_a_thread_that_there_is_not_is_none() -> None:
    with pytest.raises(OSError, match="No such file"):
        Task(1 << 22)


def test_where_the_interpreters_lock_is_not_found_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_interpreters_lock", lambda: None)
    found = waits(0.05)
    assert any(stack[0].function == SAMPLER for stack in found.stacks)
    assert not any(stack[0].function == INTERPRETER for stack in found.stacks)


# --- shown

WORK, WAIT = (
    Frame("Work.do", "/srv/app/w.py", 9, 5),
    Frame("Condition.wait", "/usr/lib/python3.11/threading.py", 331, 300),
)


@pytest.fixture
def known() -> Profile:
    found = Profile(KINDS, 2.0)
    found.add((Frame(TOLD, "", 0), WORK, WAIT), 10, 3e9)
    found.add((Frame(DISK, "", 0), WORK), 1, 1e9)
    found.add((Frame(SAMPLER, "", 0), Frame("up to 1 ms", "", 0)), 3, 2e6)
    found.add((Frame(SAMPLER, "", 0), Frame("up to 20 ms", "", 0)), 1, 10e6)
    found.add((Frame(LAG, "", 0), Frame("worker", "", 0)), 2, 30e6)
    found.add((Frame(LAG, "", 0), Frame("browser", "", 0)), 0, 0)
    return found


def test_the_text_names_states_and_lines(known: Profile) -> None:
    lines = text(known).decode().splitlines()
    assert lines[0] == "2.0 s; 4.0 s of all threads"
    assert f"{TOLD:<22} {3:>9.3f} s {75:>6.1f} %" in lines
    assert (
        "A thread that wanted the interpreter waited 3.00 ms for it at the mean: up to 1 ms 75 %, up to 20 ms 25 %."
        in lines
    )
    assert [line for line in lines if "loop" in line] == [
        "A timer of the worker loop ran 15.00 ms late at the mean, of 2."
    ]
    assert "       3.000 s  Condition.wait (lib/python3.11/threading.py:331), from Work.do (srv/app/w.py:9)" in lines


def test_the_text_of_nothing_is_one_too() -> None:
    assert b"0.0 s of all threads" in text(Profile(KINDS))


@pytest.mark.parametrize("form", FORMATS)
def test_it_comes_in_every_format_of_a_profile(known: Profile, form: str) -> None:
    assert FORMATS[form][0](known)
    assert Profile.read(known.json()).stacks == known.stacks


def test_a_kernel_that_tells_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.profiling.kernel._TASKS", "/proc/self/nothing")
    with pytest.raises(OSError, match="No such file"):
        waits(0.05)

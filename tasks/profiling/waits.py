"""Where the threads of this process wait: for a CPU, for the interpreter's lock, for other locks, for events, in calls.

How long a thread ran and how long it stood ready without a CPU is the kernel's own account (schedstat, in nanoseconds).
The rest of its time it was blocked; in what, is seen fifty times a second in the system call that it is in. The
interpreter's lock (the GIL) is told from other locks by the address that threads wait at (futex(2)), found at the start
by having a thread wait for it.

To look, the sampler needs the interpreter itself. So it is a thread that wants it, and how long it waits for it is
told, too; and of the threads that wait for it at that moment one was only put off by the sampler: the one that ran
most. What that one waited for before is told at its next look.
"""

import dis
import linecache
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from types import FrameType
from typing import Final

from tasks.profiling.kernel import Account, Task, own_tasks
from tasks.profiling.profile import Frame, Kind, Profile, Stack, stack_of

INTERVAL_S: Final = 0.02
"""Fifty looks a second; a hundred would take 7 % of the work."""

SPELLS: Final = 100
SPELL_S: Final = 0.002
"""For so long the interpreter is held at once, to have a thread wait for it: less than after how long it must go."""

LIST_EACH: Final = 50
"""Looks after which threads that Python did not start are looked for again."""

KINDS: Final = (Kind("samples", "count"), Kind("time", "nanoseconds"))

RUNS: Final = "on a CPU"
READY: Final = "ready, without a CPU"
INTERPRETER: Final = "for the interpreter"
LOCK: Final = "for a lock"
TOLD: Final = "to be told"
POLL: Final = "for descriptors"
SLEEP: Final = "asleep"
DISK: Final = "for the disk"
CALL: Final = "in another call"
UNSEEN: Final = "not seen where"
STATES: Final = (RUNS, READY, INTERPRETER, LOCK, TOLD, POLL, SLEEP, DISK, CALL, UNSEEN)

SAMPLER: Final = "the sampler, for the interpreter"
LAG: Final = "lag of loops"
"""Roots of what is no thread's time."""

STEPS_MS: Final = (0.2, 1.0, 5.0, 20.0, 100.0)
"""How long the sampler waited is told in these steps; 5 ms is after how long whoever runs is asked to give way."""

_WITH: Final = {dis.opmap[name] for name in ("BEFORE_WITH", "LOAD_SPECIAL") if name in dis.opmap}
_STANDARD: Final = re.compile(r"/lib/python3\.\d+/(?!site-packages|dist-packages)")
_THREADING: Final = str(threading.__file__)


@dataclass
class _Watched:
    """A thread between two looks. What it was blocked for and is not yet told stands in `blocked_ns`."""

    task: Task
    account: Account
    blocked_ns: int = 0
    ran_ns: int = 0
    new: bool = False


def _watched(task_id: int) -> _Watched:
    task = Task(task_id)
    try:
        return _Watched(task, task.account(), new=True)
    except OSError:  # it ended just now
        task.close()
        raise


@dataclass
class _Sampler:
    """One report while it is made."""

    found: Profile
    lock_at: int | None
    own: int = field(default_factory=threading.get_native_id)
    looked_at: int = field(default_factory=time.monotonic_ns)
    looks: int = 0
    watched: dict[int, _Watched] = field(default_factory=dict)

    def look(self) -> None:
        """Account for the time since the last look, and see what each thread is in."""
        self._watch_new()
        now = time.monotonic_ns()
        passed_ns, self.looked_at = now - self.looked_at, now
        frames = sys._current_frames()  # noqa: SLF001 - the one way to see the stacks of other threads
        idents = {each.native_id: each.ident for each in threading.enumerate()}
        waiting: list[tuple[_Watched, Stack]] = []
        for task_id, each in list(self.watched.items()):
            try:
                self._look_at(each, frames.get(idents.get(task_id) or 0), passed_ns, waiting)
            except OSError:
                self._forget(task_id)  # it has ended meanwhile
        waiting.sort(key=lambda pair: pair[0].ran_ns)
        for each, stack in waiting[:-1]:
            self._tell(each, INTERPRETER, stack)

    def _watch_new(self) -> None:
        """Begin with threads that are new; to list those of C code lets go of the interpreter, so that is rare."""
        found = {each.native_id for each in threading.enumerate() if each.native_id is not None}
        if self.looks % LIST_EACH == 0:
            found |= own_tasks()
        self.looks += 1
        for task_id in found - self.watched.keys() - {self.own}:
            with suppress(OSError):
                self.watched[task_id] = _watched(task_id)

    def _look_at(
        self, each: _Watched, frame: FrameType | None, passed_ns: int, waiting: list[tuple[_Watched, Stack]]
    ) -> None:
        if each.new:  # it is watched from now on
            each.new = False
            return
        stack = stack_of(frame) or (Frame(f"a thread without Python ({each.task.name()})", "", 0),)
        self._charge(each, stack, passed_ns)
        state = self._state(each, frame)
        if state == INTERPRETER:
            waiting.append((each, stack))
        elif state != RUNS:
            self._tell(each, state, stack)

    def _charge(self, each: _Watched, stack: Stack, passed_ns: int) -> None:
        before = each.account
        each.account = now = each.task.account()
        each.ran_ns, ready_ns = now.ran_ns - before.ran_ns, now.ready_ns - before.ready_ns
        # The account of a thread that runs is behind by a tick at most: what is too much now is too little next time.
        each.blocked_ns += passed_ns - each.ran_ns - ready_ns
        for state, spent_ns in ((RUNS, each.ran_ns), (READY, ready_ns)):
            if spent_ns > 0:
                self.found.add((Frame(state, "", 0), *stack), 1, spent_ns)

    def _tell(self, each: _Watched, state: str, stack: Stack) -> None:
        if each.blocked_ns > 0:
            self.found.add((Frame(state, "", 0), *stack), 1, each.blocked_ns)
            each.blocked_ns = 0

    def _state(self, each: _Watched, frame: FrameType | None) -> str:
        call = each.task.call()
        if call is None:
            return RUNS
        if call.is_futex:
            if self.lock_at is not None and abs(call.argument - self.lock_at) < Task.CONDITION_BYTES:
                return INTERPRETER
            return LOCK if frame is not None and _takes_lock(frame) else TOLD
        if call.kind is not None:
            return {"poll": POLL, "sleep": SLEEP}[call.kind]
        return DISK if each.task.is_uninterruptible() else CALL

    def _forget(self, task_id: int) -> None:
        known = self.watched.pop(task_id, None)
        if known is not None:
            self._tell(known, UNSEEN, ())
            known.task.close()

    def close(self) -> None:
        """Tell what was not seen, and let the files go."""
        for task_id in list(self.watched):
            self._forget(task_id)


def waits(seconds: float, wait: Callable[[float], object] | None = None, *, interval_s: float = INTERVAL_S) -> Profile:
    """Watch for so long, from the calling thread, which is left out. `wait` sleeps, and may end early by raising.

    The outermost frame of each stack is one of `STATES`, or `SAMPLER`, whose next frame is a step of `STEPS_MS`.

    Raises:
        OSError: if the kernel tells nothing of threads.
    """
    wait = wait or time.sleep
    found = Profile(KINDS)
    sampler = _Sampler(found, _interpreters_lock())
    own, began = Task(sampler.own), time.monotonic_ns()
    try:
        own.call()  # where that may not be read, there is nothing to watch
        while sampler.looked_at - began < seconds * 1e9:
            sampler.look()
            ready_ns, due = own.account().ready_ns, time.monotonic_ns() + int(interval_s * 1e9)
            wait(interval_s)
            _tell_own(found, time.monotonic_ns() - due - (own.account().ready_ns - ready_ns))
    finally:
        sampler.close()
        own.close()
    found.seconds = (sampler.looked_at - began) / 1e9
    return found


def _tell_own(found: Profile, late_ns: int) -> None:
    late_ns = max(0, late_ns)
    step = next((f"up to {each:g} ms" for each in STEPS_MS if late_ns <= each * 1e6), f"over {STEPS_MS[-1]:g} ms")
    found.add((Frame(SAMPLER, "", 0), Frame(step, "", 0)), 1, late_ns)


def _takes_lock(frame: FrameType) -> bool:
    """Say whether a frame that waits takes a lock, rather than for an event, a condition, a queue or a thread."""
    code = frame.f_code
    if code.co_name == "__enter__" or (frame.f_lasti >= 0 and code.co_code[frame.f_lasti] in _WITH):
        return True
    return code.co_filename != _THREADING and ".acquire(" in linecache.getline(code.co_filename, frame.f_lineno or 0)


def _interpreters_lock() -> int | None:
    """Give the address at which threads wait for the interpreter, None if none is seen to; it stays the same."""
    if not _found_at:
        found = _looked_for()
        if found is not None:
            _found_at.append(found)
    return _found_at[0] if _found_at else None


_found_at: Final[list[int]] = []


def _looked_for() -> int | None:
    ended = threading.Event()

    def want() -> None:
        while not ended.is_set():
            time.sleep(0.0005)

    thread = threading.Thread(target=want, name="gaia-waits", daemon=True)
    thread.start()
    try:
        task = Task(thread.native_id or 0)
        try:
            return _seen_waiting(task)
        finally:
            task.close()
    finally:
        ended.set()
        thread.join()


def _seen_waiting(task: Task) -> int | None:
    """Hold the interpreter, which the look at a thread does not let go of, until that thread waits for it."""
    for _ in range(SPELLS):
        ends_at = time.monotonic() + SPELL_S
        while time.monotonic() < ends_at:
            call = task.call()
            if call is not None and call.is_futex:
                return call.argument
        time.sleep(SPELL_S)  # it may have no CPU
    return None


# --- as text

SHOWN: Final = 15
"""Lines of a state: a worker has about so many threads that wait idle."""


def text(profile: Profile) -> bytes:
    """Give the report for people: how much of the threads' time went where, and from which lines."""
    by_state: dict[str, list[tuple[float, float, Stack]]] = {}
    for (root, *stack), (count, spent_ns) in profile.stacks.items():
        by_state.setdefault(root.function, []).append((spent_ns, count, tuple(stack)))
    total = sum(row[0] for state in STATES for row in by_state.get(state, ())) or 1.0
    lines = [f"{profile.seconds:.1f} s; {total / 1e9:.1f} s of all threads", ""]
    for state in STATES:
        spent = sum(row[0] for row in by_state.get(state, ()))
        lines.append(f"{state:<22} {spent / 1e9:>9.3f} s {100 * spent / total:>6.1f} %")
    lines += ["", *_of_sampler(by_state.get(SAMPLER, [])), *_of_loops(by_state.get(LAG, []))]
    for state in STATES:
        places = _places(by_state.get(state, []))
        lines += ["", state] if places else []
        lines += [f"{spent / 1e9:>12.3f} s  {place}" for place, spent in places]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _of_sampler(rows: list[tuple[float, float, Stack]]) -> list[str]:
    times = sum(count for _, count, _ in rows) or 1.0
    waited = sum(spent for spent, _, _ in rows)
    names = [*(f"up to {each:g} ms" for each in STEPS_MS), f"over {STEPS_MS[-1]:g} ms"]
    shares = {stack[0].function: count for _, count, stack in rows}
    steps = ", ".join(f"{name} {100 * shares[name] / times:.0f} %" for name in names if name in shares)
    return [f"A thread that wanted the interpreter waited {waited / times / 1e6:.2f} ms for it at the mean: {steps}."]


def _of_loops(rows: list[tuple[float, float, Stack]]) -> list[str]:
    return [
        f"A timer of the {stack[0].function} loop ran {spent / count / 1e6:.2f} ms late at the mean, of {count:g}."
        for spent, count, stack in sorted(rows, reverse=True)
        if count
    ]


def _places(rows: list[tuple[float, float, Stack]]) -> list[tuple[str, float]]:
    found: dict[str, float] = {}
    for spent, _, stack in rows:
        place = _place(stack)
        found[place] = found.get(place, 0.0) + spent
    return sorted(found.items(), key=lambda pair: -pair[1])[:SHOWN]


def _place(stack: Stack) -> str:
    """Name the line that waits, and the nearest one that is not the standard library's."""
    if not stack:
        return "-"
    last = stack[-1]
    caller = next((each for each in reversed(stack) if not _is_standard(each)), last)
    return _named(last) if caller is last else f"{_named(last)}, from {_named(caller)}"


def _named(frame: Frame) -> str:
    where = "/".join(PurePath(frame.file).parts[-3:])
    return f"{frame.function} ({where}:{frame.line})" if where else frame.function


def _is_standard(frame: Frame) -> bool:
    return frame.file.startswith("<") or bool(_STANDARD.search(frame.file))

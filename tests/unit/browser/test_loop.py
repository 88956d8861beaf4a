"""The loop's thread works for calls: what their steps cost is told, and they end as they would without that."""

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from tasks import metrics
from tasks.browser.loop import Loop
from tasks.scope import Scope
from tests.support.descriptors import said
from tests.support.waiting import until


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as found:
        yield found


def burn(cpu_s: float) -> None:
    ends_at = time.thread_time() + cpu_s
    while time.thread_time() < ends_at:
        pass


def cpu_s(operation: str) -> float:
    return metrics.meters(operation).cpu_s


def test_the_steps_of_a_call_count_and_what_others_do_meanwhile_does_not(loop: Loop) -> None:
    async def work() -> str:
        burn(0.05)
        others = asyncio.get_running_loop().create_task(other())
        await others
        burn(0.05)
        return "done"

    async def other() -> None:
        burn(0.3)

    assert loop.run(work(), Scope.lasting(operation="test.steps"), 20) == "done"
    assert 0.1 <= cpu_s("test.steps") < 0.3


def test_a_call_that_fails_has_cost_something_too(loop: Loop) -> None:
    async def work() -> None:
        burn(0.02)
        await asyncio.sleep(0)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        loop.run(work(), Scope.lasting(operation="test.failing"), 20)
    assert cpu_s("test.failing") >= 0.02


def test_a_call_that_is_bounded_sees_its_cancellation_and_may_tidy_up(loop: Loop) -> None:
    seen = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            burn(0.02)
            await asyncio.sleep(0)
            seen.append("tidied")
            raise

    with pytest.raises(TimeoutError):
        loop.run(work(), Scope.lasting(operation="test.bounded"), 0.05)
    assert seen == ["tidied"]
    assert cpu_s("test.bounded") >= 0.02


def test_a_call_that_handles_what_it_awaits_goes_on(loop: Loop) -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError("theirs")

    async def work() -> str:
        try:
            await failing()
        except KeyError:
            await asyncio.sleep(0)
            return "handled"
        return "missed"

    assert loop.run(work(), Scope.lasting(operation="test.handling"), 20) == "handled"


WITHOUT_DESCRIPTORS = """
from gaia.errors import BrowserUnavailable
from tasks.browser.loop import Loop
from tasks.scope import Scope

async def answers():
    return "done"

def ask(free):
    with free_descriptors(free):
        try:
            return loop.run(answers(), Scope.lasting(operation="test.asked"), 5)
        except BrowserUnavailable as failure:
            return failure

loop = Loop()
print(*map(ask, {free}), sep="\\n")
loop.close()
"""


def test_without_a_descriptor_for_its_timer_the_loop_works_all_the_same() -> None:
    of_a_loop = 3  # its poll and its pair of sockets
    assert said(WITHOUT_DESCRIPTORS.replace("{free}", f"[{of_a_loop}]")) == ["done"]


def test_without_a_descriptor_for_the_loop_a_call_fails_and_the_next_one_tries_again() -> None:
    first, second = said(WITHOUT_DESCRIPTORS.replace("{free}", "[0, 9]"))
    assert first == "no browser: its loop cannot start: [Errno 24] Too many open files"
    assert second == "done"


class Held:
    """What a call holds while it runs."""


async def is_bounded(held: Held) -> None:
    await asyncio.get_running_loop().create_future()


async def fails(held: Held) -> None:
    await asyncio.sleep(0)
    raise KeyError(held)


async def handles(held: Held) -> None:
    try:
        await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.01)
    except TimeoutError:
        await asyncio.sleep(0)
        raise


@pytest.mark.parametrize("work", [is_bounded, fails, handles])
def test_a_call_that_ends_in_an_error_leaves_nothing_to_the_collector(
    loop: Loop, work: Callable[[Held], Coroutine[Any, Any, None]]
) -> None:
    def run() -> weakref.ref[Held]:
        held = Held()
        with suppress(TimeoutError, KeyError):
            loop.run(work(held), Scope.lasting(operation="test.left"), 0.1)
        return weakref.ref(held)

    gc.disable()
    try:
        left = run()
        until(lambda: left() is None, 5)
    finally:
        gc.enable()

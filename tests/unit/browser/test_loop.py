"""The loop's thread works for calls: what their steps cost is told, and they end as they would without that."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tasks import metrics
from tasks.browser.loop import Loop
from tasks.scope import Scope


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

"""How late a loop is, by a timer of the kernel."""

import asyncio
import resource
import select
import time
from collections.abc import Iterator

import pytest

from tasks import metrics
from tasks.runtime.lag import PERIOD_S, Lag


@pytest.fixture
def lag() -> Iterator[Lag]:
    found = Lag("test")
    yield found
    found.close()
    metrics.LOOP_LAG.remove("test")


def told(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"gaia_loop_lag_seconds_{name}", {"loop": "test"}) or 0.0


def test_a_loop_that_is_blocked_is_late_by_that(lag: Lag) -> None:
    async def blocked() -> None:
        loop = asyncio.get_running_loop()
        told_once = asyncio.Event()

        def tell() -> None:
            lag.tell()
            told_once.set()

        loop.add_reader(lag.descriptor, tell)
        select.select([lag.descriptor], [], [])  # it is due
        due_at = time.monotonic()
        while time.monotonic() < due_at + 0.2:  # and the loop does something else
            pass
        await told_once.wait()
        loop.remove_reader(lag.descriptor)

    asyncio.run(blocked())
    assert told("count") == 1
    assert told("sum") >= 0.2


def test_what_was_due_meanwhile_is_told_with_the_first(lag: Lag) -> None:
    lag.tell()
    assert told("count") == 0  # nothing is due yet
    ends_at = time.monotonic() + 2 * PERIOD_S
    while time.monotonic() < ends_at:
        select.select([], [], [], ends_at - time.monotonic())
    lag.tell()
    assert told("count") == 1
    assert told("sum") >= PERIOD_S * 0.99
    select.select([lag.descriptor], [], [])
    lag.tell()
    assert told("count") == 2


def test_a_timer_that_cannot_be_had_is_an_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Lag("test")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

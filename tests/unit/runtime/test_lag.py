"""How late a loop is, by a timer of the kernel."""

import asyncio
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tasks import metrics
from tasks.runtime.lag import PERIOD_S, Lag
from tests.support.waiting import until


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
    select.select([lag.descriptor], [], [])
    ends_at = time.monotonic() + PERIOD_S
    while time.monotonic() < ends_at:
        select.select([], [], [], ends_at - time.monotonic())
    lag.tell()
    assert told("count") == 1
    assert told("sum") >= PERIOD_S * 0.99
    select.select([lag.descriptor], [], [])
    lag.tell()
    assert told("count") == 2


def test_before_it_is_due_nothing_is_told(lag: Lag) -> None:
    def tells_nothing() -> bool:
        before = told("count")
        lag.tell()
        return told("count") == before

    until(tells_nothing)  # after a stall longer than the period something was due


def test_a_timer_that_cannot_be_had_is_an_error() -> None:
    # In a process of its own: the limit is for all of its threads.
    script = """
import resource
from tasks.runtime.lag import Lag
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    Lag("test")
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "Too many open files\n"

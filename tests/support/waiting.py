"""Waiting for a condition, with a bound."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], timeout_s: float = 20.0, *, what: str = "the condition") -> T:
    """Give the condition's first true value; fail the test if there is none in time."""
    pause = threading.Event()
    ends_at = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= ends_at:
            message = f"{what} did not come true within {timeout_s:g} s"
            raise AssertionError(message)
        pause.wait(0.01)

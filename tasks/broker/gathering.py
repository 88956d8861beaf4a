"""Lets the ends of a moment travel together while no slot is without work: a turn costs as much as a short call."""

import time
from collections.abc import Callable
from typing import Any, Final

from tasks.broker.holder import Holder

GATHER_S: Final = 0.005
"""The next turn is sent no sooner after the last one, and no result is later by more."""


class Gathering:
    """Belongs to one channel, and to the loop's thread."""

    def __init__(self, holder: Holder) -> None:
        """Ask this holder whether the slots have work."""
        self._holder = holder
        self._sent_at = self._wakes_at = float("-inf")

    def sent(self) -> None:
        """Know that a turn is under way."""
        self._sent_at = time.monotonic()

    def answered(self, loop: Any, wake: Callable[[], None]) -> None:
        """Plan the wake that ends the wait for others; to be called when a reply was read.

        Not in a tick: by then kombu's loop has settled how long it sleeps.
        """
        left_s = self._sent_at + GATHER_S - time.monotonic()
        if loop is not None and left_s > 0 and self._holder.has_plenty():
            self._wakes_at = time.monotonic() + left_s
            loop.call_later(left_s, wake)

    def holds_back(self) -> bool:
        """Say whether the next turn waits for more ends."""
        return time.monotonic() < self._wakes_at and self._holder.has_plenty()

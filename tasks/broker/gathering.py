"""Lets what ends within a moment travel together: a turn costs as much as a short call.

Turns are no closer than a twentieth of the time for which calls are held, and 5 ms at most. So a result, and the next
call for a slot, is late by no more than that; where calls are short, or few, nothing waits.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from tasks.broker.holder import Holder

LONGEST_S: Final = 0.005


class Gathering:
    """Belongs to one channel, and to the loop's thread."""

    def __init__(self, holder: Holder) -> None:
        """Ask this holder how far apart turns may be."""
        self._holder = holder
        self._sent_at = self._wakes_at = float("-inf")

    def sent(self) -> None:
        """Know that a turn is under way."""
        self._sent_at = time.monotonic()

    def answered(self, loop: Any, wake: Callable[[], None]) -> None:
        """Plan the wake that ends the wait for others; to be called when a reply was read.

        Not in a tick: by then kombu's loop has settled how long it sleeps.
        """
        now = time.monotonic()
        left_s = self._sent_at + min(self._holder.pace_s(), LONGEST_S) - now
        if loop is not None and left_s > 0:
            self._wakes_at = now + left_s
            loop.call_later(left_s, wake)

    def holds_back(self) -> bool:
        """Say whether the next turn waits for more ends."""
        return time.monotonic() < self._wakes_at

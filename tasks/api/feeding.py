"""Bandwidth for the bodies of a batch: the engine's thread reads by what is leased, the batch's asks for more."""

import heapq
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Final

from tasks.api.engine import Engine
from tasks.api.gate import OPEN
from tasks.api.transfer import MOST_CHUNK_BYTES, Pace, Starved
from tasks.limits.cluster import Limits
from tasks.limits.protocols import Refused
from tasks.limits.throttle import Throttle
from tasks.scope import Clock

LEAST_CHUNK_BYTES: Final = 1024
"""libcurl takes no smaller buffer."""

Names = tuple[str, ...]


class Feeding:
    """For the thread of one batch. Nothing of it waits: `feed` says when it is to be called again."""

    def __init__(self, limits: Limits, engine: Engine, clock: Clock, tell: Callable[[Starved], None]) -> None:
        """Have starved transfers told to the batch."""
        self._limits = limits
        self._engine = engine
        self._monotonic = clock.monotonic
        self._tell = tell
        self._serial = 0
        self._paces: dict[Names, tuple[object, Pace]] = {}
        self._hungry: list[tuple[float, int, Starved, Names]] = []

    def pace(self, names: Names) -> Pace | None:
        """Give what a transfer reads by, None where no level has a bandwidth."""
        buckets = self._limits.policy.bandwidths(names)
        if not buckets:
            return None
        known = self._paces.get(names)
        if known is not None and known[0] is buckets:  # the policy is the same
            return known[1]
        size = max(LEAST_CHUNK_BYTES, Throttle(self._limits, names, if_away=OPEN).most_bytes(MOST_CHUNK_BYTES))
        found = Pace(partial(self._limits.leased_bytes, names), self._tell, size)
        self._paces[names] = (buckets, found)
        return found

    def starved(self, starved: Starved, names: Names) -> None:
        """Ask for a transfer with the next `feed`."""
        self._put(self._monotonic(), starved, names)

    def feed(self) -> float:
        """Ask for all whose time has come; give the seconds until the next one's, infinity if there is none."""
        now = self._monotonic()
        while self._hungry and self._hungry[0][0] <= now:
            _, _, starved, names = heapq.heappop(self._hungry)
            transfer = starved.transfer
            if transfer.abandoned or transfer.error is not None:
                continue  # it has ended meanwhile, of its time for instance
            if starved.wanted_bytes <= 0:
                self._engine.feed(transfer, starved.paid_bytes)
            else:
                self._ask(starved, names, now)
        return self._hungry[0][0] - now if self._hungry else inf

    def _ask(self, starved: Starved, names: Names, now: float) -> None:
        found = self._limits.take(names, starved.wanted_bytes, if_away=OPEN)
        if isinstance(found, Refused):
            self._put(now + found.retry_after_s, starved, names)
            return
        left = starved._replace(
            wanted_bytes=starved.wanted_bytes - found.tokens, paid_bytes=starved.paid_bytes + found.tokens
        )
        self._put(now + found.wait_s, left, names)

    def _put(self, due_at: float, starved: Starved, names: Names) -> None:
        self._serial += 1
        heapq.heappush(self._hungry, (due_at, self._serial, starved, names))

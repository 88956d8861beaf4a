"""Limits under a clock that the test holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, cast
from unittest.mock import patch

import redis

from tasks.limits import reach as reach_module
from tasks.limits.memory import MemoryBreaker, MemoryLeases, MemoryTokens
from tasks.limits.protocols import CircuitBreaker, ConcurrencyLimiter
from tasks.limits.reach import Reach
from tasks.limits.scripts import NOW, SCRIPTS
from tasks.limits.shared import SharedBreaker, SharedLeases, SharedTokens
from tasks.limits.tokens import Tokens
from tasks.limits.view import ViewedBreaker
from tasks.scope import Clock


class Hands(Protocol):
    """What moves a clock."""

    def advance(self, seconds: float) -> None: ...


class HeldTime:
    """A monotonic clock that stands until it is told to move; it keeps whole microseconds."""

    def __init__(self) -> None:
        self._us = 1_000_000_000

    def advance(self, seconds: float) -> None:
        self._us += round(seconds * 1_000_000)

    def now_s(self) -> float:
        # A double holds these to well under a microsecond; the margin keeps what is cut off below it whole.
        return (self._us + 0.25) / 1_000_000

    def clock(self) -> Clock:
        return Clock(wall=self.now_s, monotonic=self.now_s)


@dataclass
class Limiting:
    """One implementation of everything, and its clock."""

    clock: Hands
    tokens: Tokens
    leases: ConcurrencyLimiter
    breaker: CircuitBreaker


def in_memory() -> Limiting:
    time = HeldTime()
    clock = time.clock()
    return Limiting(time, MemoryTokens(clock), MemoryLeases(clock), MemoryBreaker(clock))


TEST_CLOCK = "{gaia:limits}:test-clock"
HELD_NOW = f"local function now_us() return tonumber(redis.call('GET', '{TEST_CLOCK}')) end\n"
"""In place of the server's clock: one that the test moves. Microseconds since the epoch, as large as today's."""


class ServerTime:
    """The clock of the scripts on a server."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        client.set(TEST_CLOCK, 1_800_000_000_000_000)

    def advance(self, seconds: float) -> None:
        self._client.incrby(TEST_CLOCK, round(seconds * 1_000_000))


class Both:
    """The clock of the server and that of this process, moved together."""

    def __init__(self, *clocks: Hands) -> None:
        self._clocks = clocks

    def advance(self, seconds: float) -> None:
        for each in self._clocks:
            each.advance(seconds)


@contextmanager
def viewed(url: str) -> Iterator[Limiting]:
    """As `in_redis`, with a circuit breaker that remembers what it saw."""
    with in_redis(url) as found:
        held = HeldTime()
        breaker = ViewedBreaker(cast("SharedBreaker", found.breaker), held.clock())
        yield replace(found, clock=Both(found.clock, held), breaker=breaker)


@contextmanager
def in_redis(url: str) -> Iterator[Limiting]:
    """Everything in Redis, on real scripts; only the reading of the clock is exchanged."""
    held = {name: text.replace(NOW, HELD_NOW) for name, text in SCRIPTS.items()}
    with patch.object(reach_module, "SCRIPTS", held):
        reach = Reach.to(url)
    try:
        time = ServerTime(reach.client)
        yield Limiting(time, SharedTokens(reach), SharedLeases(reach), SharedBreaker(reach))
    finally:
        reach.close()

"""Limits under a clock that the test holds."""

from dataclasses import dataclass
from typing import Protocol

from tasks.limits.memory import MemoryBreaker, MemoryLeases, MemoryTokens
from tasks.limits.protocols import CircuitBreaker, ConcurrencyLimiter
from tasks.limits.tokens import Tokens
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

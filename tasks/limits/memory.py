"""Limits kept in this process: for tests, for one process alone, and as the measure of what Redis has to do."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from secrets import token_hex
from typing import Final, TypeVar

from gaia.errors import LeaseLost
from tasks.limits.circuit import SECOND_US, Circuit
from tasks.limits.gcra import Level, Taken, take
from tasks.limits.leasing import Leases, granted
from tasks.limits.protocols import (
    HELD,
    LEASE_TTL_S,
    SLOT_POLL_S,
    Away,
    Bucket,
    Lease,
    Passage,
    Refused,
    Rules,
    Slots,
    State,
)
from tasks.limits.tokens import Tokens
from tasks.scope import Clock

T = TypeVar("T")

MOST_NAMES: Final = 10_000
"""Levels remembered; the one that was used longest ago is forgotten first, and starts anew."""


def _now_us(clock: Clock) -> int:
    return int(clock.monotonic() * SECOND_US)


class MemoryTokens(Tokens):
    """A `RateLimiter` and `ByteBucket`."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Take the time from a clock."""
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, Level] = OrderedDict()

    def lease(self, buckets: Sequence[Bucket], *, wanted: int, horizon_s: float, returned: int, if_away: Away) -> Taken:
        """Take tokens ahead; see `Tokens`."""
        del if_away
        with self._lock:
            taken = take(
                self._levels,
                buckets,
                now_us=_now_us(self._clock),
                wanted=wanted,
                horizon_us=horizon_s * SECOND_US,
                returned=returned,
            )
            for each in buckets:
                if each.name in self._levels:
                    self._levels.move_to_end(each.name)
            while len(self._levels) > MOST_NAMES:
                self._levels.popitem(last=False)
            return taken


class MemoryLeases(Leases):
    """A `ConcurrencyLimiter`."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Take the time from a clock."""
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, float]] = {}

    def acquire_many(
        self, slots: Sequence[Slots], many: int, *, ttl_s: float = LEASE_TTL_S, if_away: Away
    ) -> list[Lease] | Refused:
        """Take slots of every level, or of none."""
        del if_away
        with self._lock:
            now, room = self._clock.monotonic(), inf
            for each in slots:
                self._prune(each.name, now)
                free = inf if each.shadow else each.limit - len(self._held.get(each.name, ()))
                if free < 1:
                    return Refused(each.name, SLOT_POLL_S)
                room = min(room, free)
            leases = [Lease(token_hex(8), tuple(slots), ttl_s) for _ in range(granted(many, room))]
            for each in slots:
                self._held.setdefault(each.name, {}).update((lease.id, now + ttl_s) for lease in leases)
            used = self._used(slots)
            return [each._replace(used=used) for each in leases]

    def renew_many(self, leases: Sequence[Lease]) -> tuple[list[tuple[Lease, str]], tuple[int, ...]]:
        """Hold leases for another `ttl_s`."""
        lost: list[tuple[Lease, str]] = []
        slots = leases[0].slots
        with self._lock:
            now = self._clock.monotonic()
            for each in slots:
                self._prune(each.name, now)
            for lease in leases:
                missing = [each.name for each in slots if lease.id not in self._held.get(each.name, ())]
                if missing:
                    lost.append((lease, missing[0]))
                    continue
                for each in slots:
                    self._held[each.name][lease.id] = now + lease.ttl_s
            return lost, self._used(slots)

    def release_many(self, leases: Sequence[Lease]) -> int:
        """Give the slots back."""
        with self._lock:
            now, held = self._clock.monotonic(), 0
            for lease in leases:
                ends = [self._held.get(each.name, {}).pop(lease.id, 0.0) for each in lease.slots]
                held += any(each > now for each in ends)
            for each in leases[0].slots:
                self._prune(each.name, now)
            return held

    def _used(self, slots: Sequence[Slots]) -> tuple[int, ...]:
        return tuple(len(self._held.get(each.name, ())) for each in slots)

    def end(self, lease: Lease) -> None:
        """Give the slots back, all or none."""
        with self._lock:
            now = self._clock.monotonic()
            for each in reversed(lease.slots):
                self._prune(each.name, now)
                if lease.id not in self._held.get(each.name, ()):
                    raise LeaseLost(each.name)
            for each in lease.slots:
                del self._held[each.name][lease.id]
                self._prune(each.name, now)

    def held(self, name: str) -> int:
        """Give how many leases are held."""
        with self._lock:
            self._prune(name, self._clock.monotonic())
            return len(self._held.get(name, ()))

    def _prune(self, name: str, now: float) -> None:
        """Forget what lapsed; of a level nobody holds, everything."""
        left = {lease: ends_at for lease, ends_at in self._held.pop(name, {}).items() if ends_at > now}
        if left:
            self._held[name] = left


class MemoryBreaker:
    """A `CircuitBreaker`."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Take the time from a clock."""
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()

    def enter(self, name: str, rules: Rules, *, if_away: Away) -> Passage | Refused:
        """Ask for leave to try."""
        del if_away

        def enter(circuit: Circuit, now_us: int) -> Passage | Refused:
            found = circuit.enter(rules, now_us, token_hex(8))
            if isinstance(found, str):
                return Passage(name, rules, found)
            return Refused(HELD + name if circuit.is_held(now_us) else name, found / SECOND_US)

        return self._with(name, enter)

    def hold(self, name: str, seconds: float) -> None:
        """Let nobody through for so long."""
        self._with(name, lambda circuit, now_us: circuit.hold(now_us, round(seconds * SECOND_US)))

    def succeeded(self, passage: Passage) -> None:
        """Tell that it worked."""
        self._with(passage.name, lambda circuit, now_us: circuit.succeeded(passage.rules, now_us, passage.probe))

    def failed(self, passage: Passage) -> None:
        """Tell that it failed."""
        self._with(passage.name, lambda circuit, now_us: circuit.failed(passage.rules, now_us, passage.probe))

    def abandoned(self, passage: Passage) -> None:
        """Tell that nobody will know."""
        self._with(passage.name, lambda circuit, _: circuit.abandoned(passage.probe))

    def state(self, name: str) -> State:
        """Give the state."""
        return self._with(name, lambda circuit, now_us: circuit.state(now_us))

    def _with(self, name: str, act: Callable[[Circuit, int], T]) -> T:
        with self._lock:
            circuit = self._circuits.pop(name, None) or Circuit()
            try:
                return act(circuit, _now_us(self._clock))
            finally:
                if circuit != Circuit():
                    self._circuits[name] = circuit
                while len(self._circuits) > MOST_NAMES:
                    self._circuits.popitem(last=False)

"""Tokens leased ahead: one call of the store brings a slice for the next requests of this process.

A leased token is spent when it is leased. It may be used later, though, for at most `horizon_s`; so that over any
window the cluster still stays below rate * time + burst, a bucket's burst is smaller by what its rate gives in a
horizon:

    rate * (t + horizon) + (burst - rate * horizon) = rate * t + burst

So from rest at most burst - rate * horizon requests go at once. The horizon is 250 ms, less where that would take
more than half of the burst; where it would be under four tokens nothing is leased, every leave is a call, and the
burst is whole.

A slice is what this process used in the last 150 ms, at most twice the slice before it. What is left when its time is
over goes back with the next call, or lapses with the process. A slice that has to be waited for is reserved within
the horizon; its tokens say how long (`Admitted.wait_s`). All processes together reserve about 150 ms of the rate, so
they come in turns.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from sys import maxsize
from typing import Final

from tasks.limits.counting import answer, leased
from tasks.limits.gcra import Taken
from tasks.limits.protocols import Admitted, Away, Bucket, Refused
from tasks.limits.tokens import SECOND_US, Tokens
from tasks.scope import Clock

HORIZON_S: Final = 0.25
SLICE_S: Final = 0.15
RESERVED: Final = 0.8
"""Of a horizon may be waited; in the rest the tokens are used."""

LEAST_TOKENS: Final = 4
MOST_STACKS: Final = 10_000
"""Stacks with a slice; the one that was used longest ago lapses first."""

FLOOR_S: Final = 0.001


def horizon_s(bucket: Bucket) -> float:
    """Give for how long tokens of a bucket may be leased, 0 for not at all."""
    tokens = min(bucket.rate_per_s * HORIZON_S, bucket.burst / 2)
    return tokens / bucket.rate_per_s if tokens >= LEAST_TOKENS else 0.0


def kept_back(bucket: Bucket) -> Bucket:
    """Give the bucket with the burst that leaves room for what is leased."""
    return bucket._replace(burst=bucket.burst - bucket.rate_per_s * horizon_s(bucket))


class _Slice:
    """What this process has leased of one stack."""

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self.buckets = tuple(map(kept_back, buckets))
        self.horizon_s = min(map(horizon_s, buckets))
        # A shadow refuses nothing, so it makes no chunk smaller either.
        binding = [min(each.rate_per_s * SLICE_S, each.burst) for each in self.buckets if not each.shadow]
        self.most = max(1, int(min(binding))) if binding else maxsize
        self.lock = threading.Lock()
        self.tokens = self.used = 0
        self.size = 1.0
        self.since = self.usable_at = self.ends_at = self.closed_until = 0.0
        self.refused = Refused("", 0.0)

    def wanted(self, now: float, size: int) -> int:
        """Give how many tokens to lease: what the last slice's pace makes of `SLICE_S`."""
        if not self.horizon_s:
            return size
        pace = self.used / max(now - self.since, FLOOR_S) * SLICE_S
        self.size = min(max(pace, 1.0), self.size * 2, self.most)
        return min(max(size, int(self.size)), self.most)


class Ahead(Tokens):
    """A `RateLimiter` and `ByteBucket` that asks another one for slices. Thread-safe; one a process."""

    def __init__(self, store: Tokens, clock: Clock | None = None) -> None:
        """Lease from a store."""
        self._store = store
        self._monotonic = (clock or Clock()).monotonic
        self._lock = threading.Lock()
        self._slices: OrderedDict[tuple[Bucket, ...], _Slice] = OrderedDict()

    def lease(self, buckets: Sequence[Bucket], *, wanted: int, horizon_s: float, returned: int, if_away: Away) -> Taken:
        """Hand on to the store: whoever leases by himself has no use for slices."""
        return self._store.lease(
            tuple(map(kept_back, buckets)), wanted=wanted, horizon_s=horizon_s, returned=returned, if_away=if_away
        )

    def take(self, buckets: Sequence[Bucket], size_bytes: int, *, if_away: Away) -> Admitted | Refused:
        """Take up to `size_bytes` tokens of every bucket, from the slice of this stack if it has any."""
        if not buckets:
            return Admitted(size_bytes)
        found = self._slice(tuple(buckets))
        with found.lock:
            now = self._monotonic()
            if found.tokens < 1 or max(now, found.usable_at) >= found.ends_at:
                if now < found.closed_until:
                    refused = Refused(found.refused.limit, found.closed_until - now)
                    return answer(buckets, refused)
                if not self._fill(found, now, size_bytes, if_away):
                    return answer(buckets, found.refused)
            given = min(size_bytes, found.tokens)
            found.tokens -= given
            found.used += given
            return answer(buckets, Admitted(given, max(0.0, found.usable_at - now)))

    def take_leased(self, buckets: Sequence[Bucket], size_bytes: int) -> int:
        """Take up to `size_bytes` of what this process has leased already; 0 if that is nothing. Never waits."""
        found = self._slices.get(tuple(buckets))
        if found is None or not found.lock.acquire(blocking=False):
            return 0
        try:
            if found.tokens < 1 or not found.usable_at <= self._monotonic() < found.ends_at:
                return 0
            given = min(size_bytes, found.tokens)
            found.tokens -= given
            found.used += given
        finally:
            found.lock.release()
        answer(buckets, Admitted(given))
        return given

    def close(self) -> None:
        """Give back what is left, as far as the store answers."""
        with self._lock:
            slices = list(self._slices.values())
            self._slices.clear()
        for each in slices:
            with each.lock:
                returned, each.tokens = each.tokens, 0
            if returned:
                self._store.lease(each.buckets, wanted=0, horizon_s=0.0, returned=returned, if_away=Away.FAIL_OPEN)

    def _slice(self, buckets: tuple[Bucket, ...]) -> _Slice:
        with self._lock:
            found = self._slices.get(buckets)
            if found is None:
                found = self._slices[buckets] = _Slice(buckets)
                if len(self._slices) > MOST_STACKS:
                    self._slices.popitem(last=False)
            else:
                self._slices.move_to_end(buckets)
            return found

    def _fill(self, found: _Slice, now: float, size: int, if_away: Away) -> bool:
        """Lease a slice. The answer is older than its arrival, the question younger than its sending: both count."""
        wanted, returned = found.wanted(now, size), found.tokens
        found.tokens = 0
        horizon = found.horizon_s * RESERVED
        taken = self._store.lease(found.buckets, wanted=wanted, horizon_s=horizon, returned=returned, if_away=if_away)
        leased(found.buckets, taken)
        arrived = self._monotonic()
        if not taken.tokens:
            after_s = max(taken.wait_us / SECOND_US - horizon, FLOOR_S if horizon else 0.0)
            found.refused = Refused(found.buckets[taken.refusing].name, after_s)
            found.closed_until = arrived + after_s
            return False
        # Leave that nothing stands behind is for whoever asked for it alone: the next may have chosen otherwise.
        found.tokens, found.used, found.since = (taken.tokens if taken.recorded else size), 0, now
        found.usable_at = arrived + taken.wait_us / SECOND_US if taken.wait_us else now
        found.ends_at = now + found.horizon_s
        return True

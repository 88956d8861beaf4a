"""Bandwidth for a transfer that is under way, whichever subsystem moves the bytes.

    throttle = Throttle(cluster.limits(), levels(host="files.example.com", job="backup"), if_away=Away.FAIL_OPEN)
    while True:
        chunk = source.read(throttle.leave(scope, 64 * 1024))

It waits before each chunk, and no chunk is more than 50 ms of the slowest level, so bytes flow evenly. Unlike
`Limits.move` it waits as long as the deadline of the call allows: half a transfer cannot come back later. Where no
level has a bandwidth it costs a look into a dictionary.
"""

from math import inf
from typing import Final, NamedTuple

from gaia.errors import LimitExceeded
from tasks.limits import counting
from tasks.limits.cluster import Limits
from tasks.limits.protocols import Away, Refused
from tasks.scope import Scope

CHUNK_S: Final = 0.05
PAUSE_S: Final = 0.02
"""Between two chunks while the bandwidth is used up: shorter than what a bucket holds, so none of it is lost, and long
enough that a call of Redis brings more than crumbs."""


class Granted(NamedTuple):
    """`size_bytes` may move from `at` on, monotonic time, and are spent; with 0 it is in vain to ask before `at`."""

    size_bytes: int
    at: float


class Throttle:
    """Thread-safe; one for each transfer, or for all that move bytes of the same levels."""

    def __init__(self, limits: Limits, names: tuple[str, ...], *, if_away: Away) -> None:
        """Move bytes of these levels; see `tasks.limits.policy.levels`."""
        self._limits = limits
        self._names = names
        self._if_away = if_away
        self._due_at = 0.0

    def rate_per_s(self) -> float:
        """Give bytes a second of the slowest level, infinity where there is none."""
        found = self._limits.policy.bandwidths(self._names)
        return min((each.rate_per_s for each in found if not each.shadow), default=inf)

    def most_bytes(self, wanted_bytes: int) -> int:
        """Give how many of `wanted_bytes` may be one chunk: 50 ms of the slowest level, 1 at least."""
        rate_per_s = self.rate_per_s()
        return wanted_bytes if rate_per_s == inf else max(1, min(wanted_bytes, int(rate_per_s * CHUNK_S)))

    def ask(self, wanted_bytes: int, now: float) -> Granted:
        """Ask whether some of `wanted_bytes` (at least 1) may move; `now` is monotonic time.

        For one thread that moves the bytes of many connections: it does not wait for bandwidth. About every 20 ms of
        asking is a round trip to Redis, which a Redis that hangs makes half a second, once a second; whoever cannot
        bear that asks from a thread of its own.

        Raises:
            Unreachable: Redis did not answer, and `if_away` is `FAIL_CLOSED`.
        """
        if now < self._due_at:
            return Granted(0, self._due_at)
        most = self.most_bytes(wanted_bytes)
        found = self._limits.take(self._names, most, if_away=self._if_away)
        if isinstance(found, Refused):
            return Granted(0, now + found.retry_after_s)
        if found.tokens < most:
            self._due_at = now + PAUSE_S
        return Granted(found.tokens, now + found.wait_s)

    def leave(self, scope: Scope, wanted_bytes: int, *, longest_s: float = inf) -> int:
        """Wait until some of `wanted_bytes` (at least 1) may move; give how many.

        Raises:
            LimitExceeded: that takes longer than `longest_s`, or than the call has.
            Cancelled, DeadlineExceeded: of the call.
            Unreachable: Redis did not answer, and `if_away` is `FAIL_CLOSED`.
        """
        scope.check()
        most = self.most_bytes(wanted_bytes)
        now = scope.clock.monotonic()
        pause_s = min(self._due_at - now, PAUSE_S, scope.remaining_s(), longest_s)
        if pause_s > 0:
            scope.cancelled.wait(pause_s)
            counting.paused("bytes", scope.clock.monotonic() - now)
            scope.check()
        given = self._limits.move(scope, self._names, most, if_away=self._if_away, longest_s=longest_s)
        if given < most:
            self._due_at = scope.clock.monotonic() + PAUSE_S
        return given

    def pace(self, scope: Scope, size_bytes: int, *, longest_s: float = inf) -> None:
        """Wait until all of `size_bytes` may have moved; one that cannot be done in time begins not at all.

        One that others keep from being done in time ends by then, at most 0.2 s later; what it had is spent.

        Raises:
            LimitExceeded: that takes longer than `longest_s`, or than the call has.
            Cancelled, DeadlineExceeded, Unreachable: as `leave`; what was paced by then is spent.
        """
        rate_per_s = self.rate_per_s()
        needed_s = 0.0 if rate_per_s == inf else (size_bytes - self._at_once_bytes()) / rate_per_s
        if needed_s > min(longest_s, scope.remaining_s()):
            raise LimitExceeded(f"bytes:{self._names[-1]}", round(needed_s, 6))
        left, ends_at = size_bytes, scope.clock.monotonic() + longest_s
        while left > 0:
            left_s = ends_at - scope.clock.monotonic()
            if left_s < 0:
                raise LimitExceeded(f"bytes:{self._names[-1]}", round(left / self.rate_per_s(), 6))
            left -= self.leave(scope, left, longest_s=left_s)

    def _at_once_bytes(self) -> float:
        found = self._limits.policy.bandwidths(self._names)
        return min((each.burst for each in found if not each.shadow), default=inf)

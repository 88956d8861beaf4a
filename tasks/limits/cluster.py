"""The limits of the cluster, as a service uses them: names in, leave out, every wait within the bounds of the call.

    limits = cluster.limits()
    names = levels(host="api.example.com", key="acme")
    with limits.trying("api.example.com", if_away=Away.FAIL_OPEN) as attempt:
        limits.admit(scope, names, if_away=Away.FAIL_OPEN)
        with limits.holding(scope, names, if_away=Away.FAIL_CLOSED):
            ...

`LimitExceeded` and `CircuitOpen` say when to come back. A service turns them into `Later(error.retry_after_s)`, which
gives its slot back: `admit`, `move` and `holding` do not wait longer than 250 ms for leave, nor 200 ms more for leave
that was reserved.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, Self

from config import settings
from gaia.errors import CircuitOpen, LimitExceeded, Transient
from tasks.limits import counting
from tasks.limits.ahead import Ahead
from tasks.limits.counting import answer
from tasks.limits.memory import MemoryBreaker, MemoryLeases, MemoryTokens
from tasks.limits.policy import Policy
from tasks.limits.protocols import (
    HELD,
    LEASE_TTL_S,
    Admitted,
    Away,
    CircuitBreaker,
    ConcurrencyLimiter,
    Lease,
    Passage,
    Refused,
    Slots,
)
from tasks.limits.reach import Reach
from tasks.limits.renewal import Held, Renewal
from tasks.limits.retries import Retries
from tasks.limits.shared import SharedBreaker, SharedLeases, SharedTokens
from tasks.limits.view import ViewedBreaker
from tasks.limits.waiting import LONGEST_S, leave
from tasks.limits.watcher import Watcher
from tasks.scope import Clock, Scope

NOTHING: Final = Held(Lease("", (), LEASE_TTL_S, recorded=False), 0.0)
"""What is held where no level limits concurrency."""


class Attempt:
    """A try through a circuit; success unless `fail` was called or the block raised."""

    def __init__(self) -> None:
        """Not failed yet."""
        self.failed = False

    def fail(self) -> None:
        """Tell that it failed, although nothing was raised: an answer of 503, for instance."""
        self.failed = True


class Limits:
    """Thread-safe; one a process."""

    def __init__(
        self, tokens: Ahead, leases: ConcurrencyLimiter, breaker: CircuitBreaker, *, policy: Policy | Watcher
    ) -> None:
        """Put the parts together."""
        self._tokens = tokens
        self._leases = leases
        self._breaker = breaker
        self._policy = policy
        self._renewal = Renewal(leases)
        self._retries = Retries(tokens)

    @classmethod
    def in_redis(cls, url: str, defaults: settings.Limits) -> Self:
        """Make those of a cluster. Nothing is dialled yet.

        Raises:
            InvalidSetting: if the URL is malformed.
        """
        reach = Reach.to(url)
        breaker = ViewedBreaker(SharedBreaker(reach))
        watcher = Watcher(reach, defaults, on_circuit=breaker.forget)
        found = cls(Ahead(SharedTokens(reach)), SharedLeases(reach), breaker, policy=watcher)
        found._reach = reach
        return found

    @classmethod
    def in_memory(cls, policy: Policy, clock: Clock | None = None) -> Self:
        """Make those of one process alone."""
        return cls(Ahead(MemoryTokens(clock), clock), MemoryLeases(clock), MemoryBreaker(clock), policy=policy)

    _reach: Reach | None = None

    @property
    def policy(self) -> Policy:
        """Give what is set now."""
        return self._policy.policy() if isinstance(self._policy, Watcher) else self._policy

    def ask(self, names: tuple[str, ...], *, if_away: Away) -> Admitted | Refused:
        """Ask for leave for one request, without waiting; see `RateLimiter.admit`."""
        return self._tokens.admit(self.policy.rates(names), if_away=if_away)

    def take(self, names: tuple[str, ...], size_bytes: int, *, if_away: Away) -> Admitted | Refused:
        """Ask for leave to move bytes, without waiting; see `ByteBucket.take`."""
        return self._tokens.take(self.policy.bandwidths(names), size_bytes, if_away=if_away)

    def admit(self, scope: Scope, names: tuple[str, ...], *, if_away: Away) -> None:
        """Wait for leave for one request; see `levels` for the names.

        Raises:
            LimitExceeded: that would take more than 250 ms, or longer than the call has.
            Cancelled, DeadlineExceeded: of the call.
            Unreachable: Redis did not answer, and `if_away` is `FAIL_CLOSED`.
        """
        leave(scope, lambda: self.ask(names, if_away=if_away), limit=f"rate:{names[-1]}")

    def move(
        self, scope: Scope, names: tuple[str, ...], size_bytes: int, *, if_away: Away, longest_s: float = LONGEST_S
    ) -> int:
        """Wait for leave to move bytes; give how many may move now, 1 to `size_bytes`. To be asked before each chunk.

        `longest_s` takes the place of the 250 ms. A transfer that is under way gives `inf`, and waits as long as its
        call may: to give its slot back would be to begin anew.

        Raises:
            LimitExceeded, Cancelled, DeadlineExceeded, Unreachable: as `admit`.
        """

        def ask() -> Admitted | Refused:
            return self.take(names, size_bytes, if_away=if_away)

        return leave(scope, ask, limit=f"bytes:{names[-1]}", longest_s=longest_s).tokens

    def leased_bytes(self, names: tuple[str, ...], size_bytes: int) -> int:
        """Give how many bytes may move by what this process has leased already: for a thread that waits for nobody."""
        buckets = self.policy.bandwidths(names)
        return self._tokens.take_leased(buckets, size_bytes) if buckets else size_bytes

    @contextmanager
    def holding(
        self,
        scope: Scope,
        names: tuple[str, ...],
        *,
        at_most: int | None = None,
        ttl_s: float = LEASE_TTL_S,
        if_away: Away,
    ) -> Iterator[Held]:
        """Hold a slot of every level inside the block; it is renewed there, and lapses `ttl_s` after a crash.

        `at_most` is how many slots the last name has where nothing is set for it.
        A block that lasts asks `Held.check`, which raises `LeaseLost`.

        Raises:
            LimitExceeded, Cancelled, DeadlineExceeded, Unreachable: as `admit`.
        """
        held = self.wait_for_slots(scope, names, at_most=at_most, ttl_s=ttl_s, if_away=if_away)
        try:
            yield held
        finally:
            self.release(held)

    def wait_for_slots(
        self,
        scope: Scope,
        names: tuple[str, ...],
        *,
        host: str | None = None,
        at_most: int | None = None,
        ttl_s: float = LEASE_TTL_S,
        if_away: Away,
    ) -> Held:
        """Wait for a slot of every level; `release` has to follow. See `holding`, and `acquire` for `host`.

        Raises:
            LimitExceeded, Cancelled, DeadlineExceeded, Unreachable: as `admit`.
        """

        def ask() -> Held | Refused:
            return self.acquire(names, host=host, at_most=at_most, ttl_s=ttl_s, if_away=if_away)

        return leave(scope, ask, limit=f"slots:{names[-1]}")

    def acquire(
        self,
        names: tuple[str, ...],
        *,
        host: str | None = None,
        at_most: int | None = None,
        ttl_s: float = LEASE_TTL_S,
        if_away: Away,
    ) -> Held | Refused:
        """Ask for a slot of every level, without waiting; `release` has to follow. See `holding`.

        With `host` a connection to it comes with them: a slot of all connections of the cluster, and of the host's.

        Raises:
            Unreachable: as `admit`.
        """
        slots = self.policy.slots(names, at_most) if host is None else self.policy.sending(names, host)
        held = self._renewal.take(slots, ttl_s) if slots else NOTHING
        if held is None:
            found = self._taken(slots, ttl_s, if_away)
            if isinstance(found, Refused):
                return answer(slots, found)
            held = found
        return held

    def _taken(self, slots: tuple[Slots, ...], ttl_s: float, if_away: Away) -> Held | Refused:
        refused = self._renewal.refusal(slots)
        if refused is not None:
            return refused
        many = self._renewal.wanted(slots)
        found = self._leases.acquire_many(slots, many, ttl_s=ttl_s, if_away=if_away)
        if isinstance(found, Refused):
            self._renewal.refused(slots, found)
            return found
        answer(slots, found)
        counting.held(found[0])
        return self._renewal.keep_many(found)

    def release(self, held: Held) -> None:
        """Be done with what `acquire` gave."""
        if held is not NOTHING:
            self._renewal.linger(held)

    def lend(self, scope: Scope, slots: tuple[Slots, ...], *, ttl_s: float, longest_s: float) -> Lease:
        """Wait for a lease that nobody renews, for a holder outside of this process; with Redis away there is none.

        Raises:
            LimitExceeded: none was free within `longest_s`.
            Cancelled, DeadlineExceeded: of the call.
            Unreachable: Redis did not answer.
        """

        def ask() -> Lease | Refused:
            return answer(slots, self._leases.acquire(slots, ttl_s=ttl_s, if_away=Away.FAIL_CLOSED))

        lease = leave(scope, ask, limit=slots[-1].name, longest_s=longest_s)
        counting.held(lease)
        return lease

    def give_back(self, lease: Lease) -> None:
        """End a lease of `lend`.

        Raises:
            LeaseLost: it is not held at every level: it lapsed, was given back before, or was given for others.
            Unreachable: Redis did not answer.
        """
        # Whoever names another host would free the slot of the whole cluster alone: all levels or none.
        self._leases.end(lease)

    def lent(self, name: str) -> int:
        """Give how many leases a level has, `slots:api.example.com`.

        Raises:
            Unreachable: Redis did not answer.
        """
        return self._leases.held(name)

    def enter(self, host: str, *, if_away: Away) -> Passage:
        """Ask for leave to try a host; `succeeded`, `failed` or `abandoned` has to follow.

        Raises:
            CircuitOpen: calls to the host failed in a row.
            LimitExceeded: the host said when to come back, and it is not yet then.
            Unreachable: Redis did not answer, and `if_away` is `FAIL_CLOSED`.
        """
        found = self._breaker.enter(host, self.policy.rules(host), if_away=if_away)
        if isinstance(found, Refused):
            if found.limit.startswith(HELD):
                raise LimitExceeded(found.limit, round(found.retry_after_s, 6))
            raise CircuitOpen(host, round(found.retry_after_s, 6))
        return found

    def hold(self, host: str, seconds: float) -> None:
        """Let nobody in the cluster try a host for so long: it said when to come back (RFC 9110 section 10.2.3)."""
        self._breaker.hold(host, seconds)

    def tried(self, host: str) -> None:
        """Count a first attempt: each earns a part of a retry."""
        self._retries.earn(host)

    def may_retry(self, host: str) -> bool:
        """Say whether a host's budget has a retry left, and spend it; see `tasks.limits.retries`."""
        return self._retries.spend(host)

    def succeeded(self, passage: Passage) -> None:
        """End a passage: it worked."""
        self._breaker.succeeded(passage)

    def failed(self, passage: Passage) -> None:
        """End a passage: it failed."""
        self._breaker.failed(passage)

    def abandoned(self, passage: Passage) -> None:
        """End a passage: nobody will know."""
        self._breaker.abandoned(passage)

    @contextmanager
    def trying(self, host: str, *, if_away: Away) -> Iterator[Attempt]:
        """Try a host inside the block.

        A `Transient` error of the block is a failure, `Attempt.fail` is one; no error is a success. Any other error (a
        cancel, the caller's own mistake) says nothing about the host.

        Raises:
            CircuitOpen, Unreachable: as `enter`.
        """
        passage, attempt, verdict = self.enter(host, if_away=if_away), Attempt(), self.abandoned
        try:
            yield attempt
        except Transient:
            verdict = self.failed
            raise
        else:
            verdict = self.failed if attempt.failed else self.succeeded
        finally:
            verdict(passage)

    def close(self) -> None:
        """Give back what was leased ahead, and the connections."""
        self._renewal.close()
        if isinstance(self._policy, Watcher):
            self._policy.close()
        self._tokens.close()
        if self._reach is not None:
            self._reach.close()


@cache
def limits() -> Limits:
    """Give the limits of this process' cluster."""
    found = settings.load()
    return Limits.in_redis(found.redis_url, found.limits)


def close() -> None:
    """Close them, if anything has asked for them; again changes nothing. For the end of a worker."""
    if limits.cache_info().currsize:
        limits().close()

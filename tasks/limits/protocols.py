"""What a limit promises: one protocol each for rates, bytes, concurrency and circuit breakers.

`tasks.limits.memory` keeps a limit in this process, `tasks.limits.shared` in Redis for the whole cluster;
tests/conformance/test_limits.py holds both to what is said here. All are thread-safe. None of these methods waits:
the answer is leave, or how long until it is worth asking again. A service waits through `tasks.limits.waiting`, which
turns a wait of more than 250 ms into `Later`.

A limit is a stack of levels, the outermost first: the whole cluster, a host, a key. A stack is taken in one step, all
or nothing: a level that refuses leaves every other one as it was. A level with `shadow` counts and never refuses.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol

LEASE_TTL_S: Final = 10.0
"""A concurrency lease that was not renewed for so long is gone, and its slots are free."""

SLOT_POLL_S: Final = 0.1
"""After so long it is worth asking for a slot again. Nobody knows when its holder is done."""


class Away(Enum):
    """What happens to a request for leave while the authority, Redis, does not answer. Chosen at each use."""

    FAIL_OPEN = "open"
    """Leave is given, unlimited and uncounted."""

    FAIL_CLOSED = "closed"
    """`Unreachable`, which is transient."""


class Bucket(NamedTuple):
    """One level of a rate: `rate_per_s` tokens a second (bytes, for bandwidth), at most `burst` at once.

    Over any `t` seconds the cluster is given at most `rate_per_s * t + burst` tokens. `burst` is at least 1.
    """

    name: str
    rate_per_s: float
    burst: float
    shadow: bool = False


class Slots(NamedTuple):
    """One level of a concurrency limit: at most `limit` leases at once."""

    name: str
    limit: int
    shadow: bool = False


class Rules(NamedTuple):
    """When a circuit opens and closes.

    `failure_threshold` failures in a row open it; `open_s` seconds later it is half-open: one probe at a time is let
    through. `success_threshold` successes of probes in a row close it, one failure opens it again. A probe without a
    verdict after `probe_s` seconds is taken for dead, and the next caller is the probe.
    """

    failure_threshold: int = 5
    open_s: float = 30.0
    success_threshold: int = 3
    probe_s: float = 60.0


class Admitted(NamedTuple):
    """Leave for `tokens` requests or bytes, to be used once `wait_s` has passed; 0 unless it was reserved ahead."""

    tokens: int = 1
    wait_s: float = 0.0


class Refused(NamedTuple):
    """No leave. Asking before `retry_after_s` is in vain; `limit` is the name of the level that refuses."""

    limit: str
    retry_after_s: float


class Lease(NamedTuple):
    """A slot on each of `slots`, until `release` or for `ttl_s` after the last `renew`.

    `recorded` is False for leave that was given while the authority was away: nothing stands behind it. `used` says how
    many leases each level had when this one was given, itself included; more than `limit` only for a shadow.
    """

    id: str
    slots: tuple[Slots, ...]
    ttl_s: float
    recorded: bool = True
    used: tuple[int, ...] = ()


HELD: Final = "retry-after:"
"""Stands before the name in `Refused.limit` where a hold refuses, not the circuit."""


class State(Enum):
    """Of a circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Passage(NamedTuple):
    """Leave to try; exactly one of `succeeded`, `failed`, `abandoned` ends it. `probe` is "" unless it is the probe."""

    name: str
    rules: Rules
    probe: str = ""


class RateLimiter(Protocol):
    """The generic cell rate algorithm over a stack of buckets; see `tasks.limits.gcra` for its source."""

    def admit(self, buckets: Sequence[Bucket], *, if_away: Away) -> Admitted | Refused:
        """Take one token of every bucket, or none of any. An empty stack admits.

        Raises:
            Unreachable: Redis did not answer, and `if_away` is `FAIL_CLOSED`.
        """
        ...


class ByteBucket(Protocol):
    """The same algorithm for bytes: bandwidth of the cluster, of a host, of a job, stacked."""

    def take(self, buckets: Sequence[Bucket], size_bytes: int, *, if_away: Away) -> Admitted | Refused:
        """Take up to `size_bytes` (at least 1) of every bucket, the same number of each.

        `Admitted.tokens` is how many bytes may move now, 1 to `size_bytes`: a caller moves that many, then asks for the
        rest. A chunk larger than the smallest burst is thus given in parts.

        Raises:
            Unreachable: Redis did not answer, and `if_away` is `FAIL_CLOSED`.
        """
        ...


class ConcurrencyLimiter(Protocol):
    """A counting semaphore whose slots come back by themselves when a holder dies."""

    def acquire(self, slots: Sequence[Slots], *, ttl_s: float = LEASE_TTL_S, if_away: Away) -> Lease | Refused:
        """Take a slot of every level, or of none. There is no queue: whoever asks first after a release has it.

        A holder that outlasts `ttl_s` renews well before; `tasks.limits.renewal` does so for a whole process.

        Raises:
            Unreachable: Redis did not answer, and `if_away` is `FAIL_CLOSED`.
        """
        ...

    def acquire_many(
        self, slots: Sequence[Slots], many: int, *, ttl_s: float = LEASE_TTL_S, if_away: Away
    ) -> list[Lease] | Refused:
        """Take up to `many` leases (at least 1) of the same levels in one step.

        It gives one, or as many as are a fourth of what is free. All of them say the same in `used`: what the levels
        have with all of them.

        Raises:
            Unreachable: as `acquire`.
        """
        ...

    def renew_many(self, leases: Sequence[Lease]) -> tuple[list[tuple[Lease, str]], tuple[int, ...]]:
        """Hold leases of the same levels and the same `ttl_s` for another `ttl_s` from now, in one step.

        Gives those that are lost, each with the level where it is not held any more, and how many leases each level
        has. Of a lost one nothing is renewed.

        Raises:
            Unreachable: as `renew`.
        """
        ...

    def release_many(self, leases: Sequence[Lease]) -> int:
        """Give the slots of leases of the same levels back, in one step; give how many were held, as `release`."""
        ...

    def renew(self, lease: Lease) -> None:
        """Hold a lease for another `ttl_s` from now.

        Raises:
            LeaseLost: it lapsed or was released. Its slots may be another's by now, so the holder has to end.
            Unreachable: Redis did not answer. The lease stands until its time is over.
        """
        ...

    def release(self, lease: Lease) -> bool:
        """Give the slots back; False if they were not held: lapsed, released before, or never recorded.

        Releasing twice changes nothing, and another's lease cannot be released without its id. If Redis does not
        answer it is False, too: the slots are free after the lease's `ttl_s`.
        """
        ...

    def end(self, lease: Lease) -> None:
        """Give the slots back as `release` does, all or none: of two that do so at once, one has done it.

        Raises:
            LeaseLost: it is not held at every level: it lapsed, was released, or was given for others. It names the
                innermost of those.
            Unreachable: Redis did not answer. The slots are free after the lease's `ttl_s`.
        """
        ...

    def held(self, name: str) -> int:
        """Give how many leases are held at a level now.

        Raises:
            Unreachable: Redis did not answer.
        """
        ...


class CircuitBreaker(Protocol):
    """A circuit by name. Failures in a row are counted over the whole cluster.

    A verdict that comes late, of a passage from before the circuit opened or of a probe that was replaced, changes
    nothing while the circuit is open or half-open.
    """

    def enter(self, name: str, rules: Rules, *, if_away: Away) -> Passage | Refused:
        """Ask for leave to try. Open: `retry_after_s` is the time to half-open. Half-open with a probe under way: 1 s.

        While it is held, `Refused.limit` begins with `HELD`.

        Raises:
            Unreachable: Redis did not answer, and `if_away` is `FAIL_CLOSED`.
        """
        ...

    def succeeded(self, passage: Passage) -> None:
        """Tell that it worked. Never raises; with Redis away the verdict is lost."""
        ...

    def failed(self, passage: Passage) -> None:
        """Tell that it failed. Never raises; with Redis away the verdict is lost."""
        ...

    def abandoned(self, passage: Passage) -> None:
        """Tell that nobody will know, after a cancel for instance: the next caller is the probe. Never raises."""
        ...

    def hold(self, name: str, seconds: float) -> None:
        """Let nobody through for so long, whatever the circuit's state: its host said when to come back.

        A hold that lasts longer stands. Never raises; with Redis away it is lost.
        """
        ...

    def state(self, name: str) -> State:
        """Give the state, at this moment.

        Raises:
            Unreachable: Redis did not answer.
        """
        ...

"""What a rate limiter and a byte bucket share: tokens of a stack of buckets, leased from a store."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tasks.limits.gcra import Taken
from tasks.limits.protocols import Admitted, Away, Bucket, Refused

SECOND_US = 1_000_000


class Tokens(ABC):
    """A `RateLimiter` and a `ByteBucket` over `lease`, which is all that a store has to know."""

    @abstractmethod
    def lease(self, buckets: Sequence[Bucket], *, wanted: int, horizon_s: float, returned: int, if_away: Away) -> Taken:
        """Take up to `wanted` tokens (at least 1) of every bucket, due within `horizon_s`, in one step.

        `returned` tokens, taken of the same stack before and not used, are given back in the same step.

        Raises:
            Unreachable: as `RateLimiter.admit`.
        """

    def admit(self, buckets: Sequence[Bucket], *, if_away: Away) -> Admitted | Refused:
        """Take one token of every bucket, or none of any."""
        return self.take(buckets, 1, if_away=if_away)

    def take(self, buckets: Sequence[Bucket], size_bytes: int, *, if_away: Away) -> Admitted | Refused:
        """Take up to `size_bytes` of every bucket."""
        if not buckets:
            return Admitted(size_bytes)
        taken = self.lease(buckets, wanted=size_bytes, horizon_s=0.0, returned=0, if_away=if_away)
        if taken.tokens:
            return Admitted(taken.tokens, taken.wait_us / SECOND_US)
        return Refused(buckets[taken.refusing].name, taken.wait_us / SECOND_US)

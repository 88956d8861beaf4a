"""What the leases of one process and those of the cluster share: one lease is many of one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf
from typing import Final

from gaia.errors import LeaseLost
from tasks.limits.protocols import LEASE_TTL_S, Away, Lease, Refused, Slots

SHARE: Final = 4
"""Of the slots that are free, one caller gets every fourth at most, so that none takes all of them ahead."""


class Leases(ABC):
    """A `ConcurrencyLimiter` over its bulk methods, which are all that a store has to know."""

    @abstractmethod
    def acquire_many(
        self, slots: Sequence[Slots], many: int, *, ttl_s: float = LEASE_TTL_S, if_away: Away
    ) -> list[Lease] | Refused:
        """Take up to `many` leases, see `ConcurrencyLimiter`."""

    @abstractmethod
    def renew_many(self, leases: Sequence[Lease]) -> tuple[list[tuple[Lease, str]], tuple[int, ...]]:
        """Hold leases of one stack and one time to live for another `ttl_s`, see `ConcurrencyLimiter`."""

    @abstractmethod
    def release_many(self, leases: Sequence[Lease]) -> int:
        """Give the slots of leases of one stack back, see `ConcurrencyLimiter`."""

    def acquire(self, slots: Sequence[Slots], *, ttl_s: float = LEASE_TTL_S, if_away: Away) -> Lease | Refused:
        """Take a slot of every level, or of none."""
        found = self.acquire_many(slots, 1, ttl_s=ttl_s, if_away=if_away)
        return found if isinstance(found, Refused) else found[0]

    def renew(self, lease: Lease) -> None:
        """Hold a lease for another `ttl_s`."""
        lost, _ = self.renew_many([lease])
        if lost:
            raise LeaseLost(lost[0][1])

    def release(self, lease: Lease) -> bool:
        """Give the slots back."""
        return self.release_many([lease]) > 0


def granted(many: int, room: float) -> int:
    """Give how many leases of `many` a caller gets where `room` slots (at least 1) are free."""
    return many if room == inf else max(1, min(many, int(room / SHARE)))

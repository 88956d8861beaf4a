"""How many programs of a profile the whole cluster runs at once: a lease for each, renewed as long as it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tasks.limits.protocols import Away, ConcurrencyLimiter, Refused, Slots
from tasks.limits.reach import Reach
from tasks.limits.renewal import Renewal
from tasks.limits.shared import SharedLeases
from tasks.scope import Later


class Quotas:
    """Leases by profile. A killed worker's lapse by themselves. Thread-safe."""

    def __init__(self, leases: ConcurrencyLimiter) -> None:
        """Take leases through a limiter."""
        self._leases = leases
        self._renewal = Renewal(leases)

    @classmethod
    def over(cls, url: str) -> Self:
        """Make those of a cluster. Nothing is dialled yet."""
        return cls(SharedLeases(Reach.to(url)))

    @contextmanager
    def taken(self, profile: str, limit: int) -> Iterator[None]:
        """Hold a lease as long as the block lasts. A lease that is lost meanwhile ends nothing: programs run on.

        Raises:
            Later: if all are taken.
            Unreachable: with Redis away nothing is started under such a profile (fail closed).
        """
        found = self._leases.acquire([Slots(f"process:{profile}", limit)], if_away=Away.FAIL_CLOSED)
        if isinstance(found, Refused):
            raise Later(found.retry_after_s)
        held = self._renewal.keep(found)
        try:
            yield
        finally:
            self._renewal.release(held)

    def close(self) -> None:
        """Renew no more."""
        self._renewal.close()

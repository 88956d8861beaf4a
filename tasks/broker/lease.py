"""What a process believes of a message that it holds."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.broker.keeper import LEASE_S


class Lease(NamedTuple):
    """A held message. `until` is monotonic time: past it the lease is not renewed, since the call is overdue."""

    fence: str
    since: float
    until: float
    message: Mapping[str, Any]
    is_lost: bool = False
    was_told: bool = False
    """Its run was told to stop, since the lease was lost."""

    def is_certain(self, renewed_at: float) -> bool:
        """Say whether nobody else can have the message, if leases were last renewed at a monotonic time.

        By the clock of this process: one that could renew nothing for as long as a lease lasts knows no better.
        """
        return time.monotonic() - max(self.since, renewed_at) < LEASE_S


class Returning(NamedTuple):
    """A message that is on its way back to its list, to be fetched "next" or "last"."""

    fence: str
    where: str

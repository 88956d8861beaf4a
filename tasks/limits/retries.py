"""A budget of retries for each host, so that retries do not bury a host that is in trouble.

A first attempt earns a tenth of a retry, as in Finagle's `RetryBudget` and the AWS SDKs' standard mode; that part is
counted in each process, and adds up over the cluster. Beyond it the whole cluster has one retry a second for each
host, ten at once, so that a rare call can be retried, too.
"""

import threading
from collections import OrderedDict
from typing import Final

from gaia.errors import Unreachable
from tasks.limits.protocols import Away, Bucket, RateLimiter, Refused

COST: Final = 10
"""First attempts that a retry costs."""

SAVED: Final = 100 * COST
"""First attempts whose retries a process may have saved up for a host."""

FLOOR_PER_S: Final = 1.0
FLOOR_BURST: Final = 10.0

MOST_HOSTS: Final = 10_000


class Retries:
    """Thread-safe; one a process. A host that was tried longest ago is forgotten first, and what it saved."""

    def __init__(self, tokens: RateLimiter) -> None:
        """Take what the cluster shares from a limiter."""
        self._tokens = tokens
        self._lock = threading.Lock()
        self._saved: OrderedDict[str, int] = OrderedDict()

    def earn(self, host: str) -> None:
        """Count a first attempt."""
        with self._lock:
            self._saved[host] = min(SAVED, self._saved.pop(host, 0) + 1)
            if len(self._saved) > MOST_HOSTS:
                self._saved.popitem(last=False)

    def spend(self, host: str) -> bool:
        """Take a retry if there is one. With Redis away there is only what this process saved."""
        with self._lock:
            saved = self._saved.get(host, 0)
            if saved >= COST:
                self._saved[host] = saved - COST
                return True
        # Under four tokens a horizon, so that nothing is leased ahead: every answer is the cluster's.
        bucket = Bucket(f"retry:{host}", FLOOR_PER_S, FLOOR_BURST)
        try:
            return not isinstance(self._tokens.admit((bucket,), if_away=Away.FAIL_CLOSED), Refused)
        except Unreachable:
            return False

"""What a worker's exchanges came to: for `api.stats`, and for the metrics."""

import threading
from collections import Counter, deque
from typing import Final

from gaia.errors import GaiaError
from tasks import metrics

REMEMBERED: Final = 1000
QUANTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
FOLLOWING: Final = frozenset({"retried", "resumed", "redirected"})

_EXCHANGES: Final = {each: metrics.API_EXCHANGES.labels(each) for each in ("succeeded", "failed", "limited")}
"""Looked up once: a look-up by label costs more than the count."""


class Tally:
    """Thread-safe."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self.active = 0
        self.peak_active = 0
        metrics.API_ACTIVE.watch(self.active_now)
        metrics.API_PEAK.watch(self.most_active)

    def active_now(self) -> int:
        """Give how many exchanges are under way."""
        return self.active

    def most_active(self) -> int:
        """Give the most that were."""
        return self.peak_active

    def started(self) -> None:
        """Count an exchange that begins."""
        with self._lock:
            self.counts["requests"] += 1
            self.active += 1
            self.peak_active = max(self.peak_active, self.active)

    def answered(self, status: int, size_bytes: int, seconds: float) -> None:
        """Count an exchange that ended with an answer."""
        outcome = "succeeded" if status < 500 else "failed"  # noqa: PLR2004 - the server's own failures
        with self._lock:
            self.active -= 1
            self.counts[outcome] += 1
            self.counts["received_bytes"] += size_bytes
            self.statuses[str(status)] += 1
            self._seconds.append(seconds)
        _EXCHANGES[outcome].inc()
        metrics.API_SECONDS.observe(seconds)
        metrics.API_RECEIVED.inc(size_bytes)

    def broke(self, error: BaseException) -> None:
        """Count an exchange that ended without one."""
        with self._lock:
            self.active -= 1
            self.counts["failed"] += 1
            self.errors[type(error).__name__ if isinstance(error, GaiaError) else "InternalError"] += 1
        _EXCHANGES["failed"].inc()

    def count(self, what: str) -> None:
        """Count one of `FOLLOWING`, or `limited`."""
        with self._lock:
            self.counts[what] += 1
        if what in FOLLOWING:
            metrics.API_EVENTS.labels(what).inc()

    def limited(self) -> None:
        """Count a request that was kept out."""
        self.count("limited")
        _EXCHANGES["limited"].inc()

    def quantiles(self) -> dict[str, float]:
        """Give quantiles of the last exchanges, in seconds; none before the first."""
        with self._lock:
            found = sorted(self._seconds)
        return {name: metrics.quantile(found, share) for name, share in QUANTILES if found}

"""How look-ups ended, counted by the thousand a millisecond, so without a metric's lock for each."""

import threading
from typing import Final

from tasks import metrics
from tasks.egress.cache import Cache

OUTCOMES: Final = ("hit", "stale", "negative", "joined", "shared", "asked", "failed")


class Tally:
    """Thread-safe; one a resolver. The hits of the short way are the cache's own count."""

    def __init__(self, cache: Cache) -> None:
        """Count from nothing, and let the metric see it."""
        self._cache = cache
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(OUTCOMES, 0)
        metrics.DNS_LOOKUPS.watch(self.counts)
        metrics.DNS_NAMES.watch(self.names)

    def add(self, outcome: str, number: int = 1) -> None:
        """Count look-ups that ended so."""
        with self._lock:
            self._counts[outcome] += number

    def names(self) -> int:
        """Give how many answers the cache holds."""
        return len(self._cache)

    def counts(self) -> dict[str, int]:
        """Give the counts by outcome."""
        with self._lock:
            return {**self._counts, "hit": self._counts["hit"] + self._cache.hits}

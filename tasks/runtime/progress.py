"""Where a running call's word of its progress goes."""

import logging
import time
from typing import Any, Final

from gaia.store import progress
from tasks.scope import Clock

INTERVAL_S: Final = 0.1

log = logging.getLogger(__name__)


class Reporter:
    """Stores progress, at most ten times a second; the last word, with everything done, always."""

    __slots__ = ("_client", "_clock", "_id", "_next")

    def __init__(self, client: Any, call_id: str, clock: Clock) -> None:
        """Store in Redis over `client`."""
        self._client = client
        self._id = call_id
        self._clock = clock
        self._next = 0.0

    def __call__(self, done: float, total: float | None, note: str) -> None:
        """Store how far the call is, if it is time; a failure of Redis is no failure of the call."""
        now = self._clock.monotonic()
        if now < self._next and done != total:
            return
        self._next = now + INTERVAL_S
        try:
            progress.store(self._client, self._id, progress.Progress(done, total, note[:200], time.time()))
        except Exception:
            log.debug("progress could not be stored", exc_info=True)

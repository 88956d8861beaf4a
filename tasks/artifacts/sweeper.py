"""Removes expired bodies from the artifact directory, one worker of the cluster at a time.

The thread owns nothing: whose turn it is stands in Redis as a key that expires, and what has expired in the directory.
A worker that dies while it sweeps leaves the rest to the next turn. Without Redis nobody sweeps: bodies then stay
longer, and the quota holds.
"""

import logging
import threading
from typing import Final

import redis
from redis.exceptions import RedisError

from gaia.errors import ArtifactsUnavailable
from gaia.store import keys
from gaia.store.directory import DirectoryArtifacts, Swept
from tasks.scope import Clock

TURN_S: Final = 60
"""A turn is taken at most so often in the whole cluster."""

SWEEP_S: Final = 30.0
"""Removing ends before the turn does. Should the look before take longer, two sweeps at once do no harm."""

MOST_FILES: Final = 1000
"""Removed in one sweep."""

CLOSE_S: Final = 5.0

log = logging.getLogger(__name__)


class Sweeper:
    """A daemon thread that takes turns with those of the other workers."""

    def __init__(
        self,
        directory: DirectoryArtifacts,
        client: redis.Redis,
        *,
        every_s: float = TURN_S,
        most: int = MOST_FILES,
        clock: Clock | None = None,
    ) -> None:
        """Sweep a directory; `every_s` is how often this worker asks whether it is its turn."""
        self._directory = directory
        self._client = client
        self._every_s = every_s
        self._most = most
        self._clock = clock or Clock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gaia-artifact-sweeper", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread, waiting at most five seconds for the file it is at."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def turn(self) -> Swept | None:
        """Sweep once if it is this worker's turn, None if it is not.

        Raises:
            RedisError: if Redis cannot be asked.
            ArtifactsUnavailable: if the directory cannot be used.
        """
        if not self._client.set(keys.ARTIFACT_SWEEP, threading.get_native_id(), nx=True, ex=TURN_S):
            return None
        ends_at = self._clock.monotonic() + SWEEP_S
        swept = self._directory.sweep(
            most=self._most, enough=lambda: self._closed.is_set() or self._clock.monotonic() >= ends_at
        )
        if swept.failures:
            log.warning("%d times expired artifacts were not removed: %s", len(swept.failures), swept.failures[0])
        if swept.files:
            log.info("removed %d expired artifacts of %d bytes", swept.files, swept.size_bytes)
        return swept

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self.turn()
            except (RedisError, OSError, ArtifactsUnavailable) as failure:
                log.warning("expired artifacts were not removed: %s", failure)
            self._closed.wait(self._every_s)

"""The memory that the bodies of a batch may take together, those under way included."""

import threading

from gaia.errors import BodyTooLarge


class Budget:
    """Thread-safe: the engine takes as bytes come in, the batch gives back what came to nothing."""

    def __init__(self, limit_bytes: int) -> None:
        """Have all of it."""
        self._limit_bytes = limit_bytes
        self._left = limit_bytes
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> None:
        """Take some.

        Raises:
            BodyTooLarge: of the batch, if there is not as much.
        """
        with self._lock:
            if size_bytes > self._left:
                raise BodyTooLarge("the batch", self._limit_bytes)
            self._left -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Have it again."""
        with self._lock:
            self._left += size_bytes

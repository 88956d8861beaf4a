"""Waking a thread that waits on descriptors."""

import os
import threading


class Waker:
    """Wakes a waiting thread from any other.

    Waking one that is closed does nothing: a cancel may come that late, when its descriptor belongs to something else.
    """

    def __init__(self) -> None:
        """Open it."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._open = True

    def wake(self) -> None:
        """Make `fd` readable, for good."""
        with self._lock:
            if self._open:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Close it, once."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self.fd)

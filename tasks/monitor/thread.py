"""A thread of the monitor: it lives until it is closed, whatever fails."""

import threading
from abc import ABC, abstractmethod


class Thread(ABC):
    """`start`, then `close`."""

    def __init__(self, name: str, leave_s: float) -> None:
        """Prepare; at the end it has so long to leave."""
        self._leave_s = leave_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def alive(self) -> bool:
        """Say whether the thread lives."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End; within about the time it has to leave."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(self._leave_s)

    @abstractmethod
    def _live(self) -> None:
        """Do the work until `_closed` is set."""

"""Asks anew for answers whose time is over, beside the callers who were given them meanwhile."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from tasks.egress.cache import Key
from tasks.egress.flight import Flight

CLOSE_S: Final = 2.0

log = logging.getLogger(__name__)


class Refresher:
    """Thread-safe; one daemon thread, started with the first name. It takes all that waits at once."""

    def __init__(self, act: Callable[[Mapping[Key, Flight]], None]) -> None:
        """`act` lands every flight it is given."""
        self._act = act
        self._changed = threading.Condition()
        self._waiting: dict[Key, Flight] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, key: Key, flight: Flight) -> None:
        """Have a flight flown; at once, unless others are taking off.

        Raises:
            RuntimeError: there can be no thread; the flight is not taken.
        """
        with self._changed:
            if self._closed:
                message = "closed"
                raise RuntimeError(message)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="gaia-dns-refresh", daemon=True)
                thread.start()
                self._thread = thread
            self._waiting[key] = flight
            self._changed.notify()

    def close(self) -> None:
        """End the thread after what it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed and not self._waiting:
                    return
                taken, self._waiting = self._waiting, {}
            try:
                self._act(taken)
            except Exception:
                log.exception("names could not be refreshed")

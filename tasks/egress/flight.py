"""A question under way, for whoever waits for its answer."""

import threading

from tasks.egress.cache import Kept

_lock = threading.Lock()


class Flight:
    """A future that makes its event when somebody waits: in bulk hardly anybody does, and making one takes its time."""

    __slots__ = ("_done", "_event", "_failure", "_kept")

    def __init__(self) -> None:
        """Take off."""
        self._done = False
        self._event: threading.Event | None = None
        self._kept: Kept | None = None
        self._failure: BaseException | None = None

    def land(self, kept: Kept | None, failure: BaseException | None = None) -> None:
        """Tell what was found, or why nothing was; once."""
        with _lock:
            self._kept, self._failure, self._done = kept, failure, True
            if self._event is not None:
                self._event.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the landing, whatever it brought; say whether it was in time."""
        with _lock:
            if self._done:
                return True
            event = self._event = self._event or threading.Event()
        return event.wait(timeout_s)

    def result(self, timeout_s: float) -> Kept:
        """Wait for what was found.

        Raises:
            TimeoutError: it has not landed by then, or whoever flew it had no time left.
            ResolverFailed: no name server answered.
        """
        if not self.wait(timeout_s):
            raise TimeoutError
        if self._failure is not None:
            raise self._failure
        if self._kept is None:
            raise TimeoutError
        return self._kept

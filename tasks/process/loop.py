"""Waiting on many descriptors in one thread: epoll(7)."""

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT

Callback = Callable[[], None]

log = logging.getLogger(__name__)


class Loop:
    """Runs the callbacks of descriptors that are ready, in whichever thread turns it. Adding is for any thread."""

    def __init__(self) -> None:
        """Open it."""
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._open = True
        self.add(self._wake, READ, self._woken)

    def add(self, fd: int, events: int, callback: Callback) -> None:
        """Call back whenever the descriptor is ready. A callback may come once too often: it must not block."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of a descriptor that was added."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Call back no more; to be done before the descriptor is closed. Again changes nothing."""
        if self._callbacks.pop(fd, None) is not None:
            with suppress(OSError, ValueError):  # ValueError: the loop is closed
                self._epoll.unregister(fd)

    def turn(self, timeout_s: float) -> None:
        """Wait at most so long, and run what is due."""
        for fd, _ in self._epoll.poll(max(0.0, timeout_s)):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()

    def until(self, condition: Callable[[], bool], ends_at: float) -> bool:
        """Turn until the condition holds, at most until that monotonic time; say whether it does."""
        while not condition():
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                return False
            self.turn(left_s)
        return True

    def wake(self) -> None:
        """End a wait, from any thread; one that comes after `close` does nothing."""
        with self._lock:
            if self._open:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Close it, once; nothing may turn it then."""
        with self._lock:
            if self._open:
                self._open = False
                self._epoll.close()
                os.close(self._wake)

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)


class LoopThread:
    """A loop and the thread that turns it."""

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self.loop = Loop()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, within the callback that it may be in."""
        self._ended.set()
        self.loop.wake()
        self._thread.join(timeout=5)
        self.loop.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.loop.turn(3600.0)
            except Exception:
                # Without this thread no program that is kept would be read, or seen to end, any more.
                log.exception("something about a program that is kept failed")

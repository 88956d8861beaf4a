"""Bandwidth for the bytes of many connections that one thread moves, which must not wait for it.

A `Pacer` owns the credit of each host: bytes that the limits granted and nobody has read yet. A thread of its own asks
the limits, so that a Redis that hangs holds up only hosts that have a bandwidth and have used it up. When that thread
dies they stand still; the rest goes on.
"""

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from gaia.errors import GaiaError
from tasks.limits.throttle import Granted

CHUNK_BYTES: Final = 64 * 1024
MAX_HOSTS: Final = 4096
AGAIN_S: Final = 1.0
"""After the limits could not be asked."""
CLOSE_S: Final = 5.0


class Bandwidth(Protocol):
    """What a host's bytes are paced by, as `tasks.limits.throttle.Throttle`."""

    def rate_per_s(self) -> float:
        """Give bytes a second, infinity where there is no limit."""

    def ask(self, wanted_bytes: int, now: float) -> Granted:
        """Ask whether some of `wanted_bytes` may move; `now` is monotonic time."""


class Pacer:
    """Thread-safe; `take` and `give_back` never wait for the limits."""

    def __init__(self, of: Callable[[str], Bandwidth], wake: Callable[[], None]) -> None:
        """Pace hosts by what `of` gives for each; `wake` is called when there is credit that was wanted."""
        self._of = of
        self._wake = wake
        self._bandwidths: OrderedDict[str, Bandwidth] = OrderedDict()
        self._credit: dict[str, int] = {}
        self._due: list[tuple[float, str, int]] = []
        self._asked: set[str] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def credit(self, host: str) -> float:
        """Give how many bytes may move now, infinity where there is no limit; with none, more is asked for."""
        if self._bandwidth(host).rate_per_s() == inf:
            return inf
        with self._changed:
            found = self._credit.get(host, 0)
            if not found:
                self._want(host)
            return found

    def take(self, host: str, wanted_bytes: int) -> int:
        """Spend up to so many bytes; give how many. With 0 more is asked for, and `wake` called when it is there."""
        if self._bandwidth(host).rate_per_s() == inf:
            return wanted_bytes
        with self._changed:
            found = min(wanted_bytes, self._credit.get(host, 0))
            if found:
                self._credit[host] -= found
            else:
                self._want(host)
            return found

    def give_back(self, host: str, unused_bytes: int) -> None:
        """Give back what was taken and did not move."""
        with self._changed:
            if host in self._credit:
                self._credit[host] += unused_bytes

    def close(self) -> None:
        """End the thread; nothing is granted from here on."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_S)

    def _bandwidth(self, host: str) -> Bandwidth:
        with self._changed:
            found = self._bandwidths.get(host)
            if found is None:
                found = self._bandwidths[host] = self._of(host)
                if len(self._bandwidths) > MAX_HOSTS:
                    self._credit.pop(self._bandwidths.popitem(last=False)[0], None)
            else:
                self._bandwidths.move_to_end(host)
            return found

    def _want(self, host: str) -> None:
        if host in self._asked or self._closed:
            return
        self._asked.add(host)
        heapq.heappush(self._due, (time.monotonic(), host, 0))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gaia-proxy-pace", daemon=True)
            self._thread.start()
        self._changed.notify()

    # --- the thread

    def _run(self) -> None:
        while (due := self._next()) is not None:
            host, granted_bytes = due
            if granted_bytes:
                self._grant(host, granted_bytes)
                continue
            now = time.monotonic()
            try:
                granted = self._bandwidth(host).ask(CHUNK_BYTES, now)
            except GaiaError:
                granted = Granted(0, now + AGAIN_S)
            if granted.size_bytes and granted.at <= now:
                self._grant(host, granted.size_bytes)
            else:
                with self._changed:
                    heapq.heappush(self._due, (granted.at, host, granted.size_bytes))

    def _next(self) -> tuple[str, int] | None:
        with self._changed:
            while not self._closed:
                left_s = self._due[0][0] - time.monotonic() if self._due else None
                if left_s is not None and left_s <= 0:
                    return heapq.heappop(self._due)[1:]
                self._changed.wait(left_s)
            return None

    def _grant(self, host: str, size_bytes: int) -> None:
        with self._changed:
            self._asked.discard(host)
            self._credit[host] = self._credit.get(host, 0) + size_bytes
        self._wake()

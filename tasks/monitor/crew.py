"""The same work on many things at once, in a bounded time: what is not done by then is not waited for.

Its threads are daemons, so that whatever they wait for keeps no process from ending.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

Thing = TypeVar("Thing")
Found = TypeVar("Found")

log: Final = logging.getLogger(__name__)


class Crew:
    """At most so many threads at once, those of earlier work that still run included. Thread-safe."""

    def __init__(self, at_once: int, name: str) -> None:
        """Start nothing yet."""
        self._places = threading.BoundedSemaphore(at_once)
        self._name = name

    def results(self, work: Callable[[Thing], Found], things: Sequence[Thing], bound_s: float) -> list[Found | None]:
        """Give what the work found of each thing, in order; None for what failed, or was not done in time."""
        ends_at = time.monotonic() + bound_s
        found: list[Found | None] = [None] * len(things)
        done: SimpleQueue[None] = SimpleQueue()

        def do(at: int, thing: Thing) -> None:
            try:
                found[at] = work(thing)
            except Exception:
                log.exception("%s failed", self._name)
            finally:
                self._places.release()
                done.put(None)

        started = 0
        for at, thing in enumerate(things):
            if not self._places.acquire(timeout=max(0.0, ends_at - time.monotonic())):
                break
            threading.Thread(target=do, args=(at, thing), name=self._name, daemon=True).start()
            started += 1
        for _ in range(started):
            try:
                done.get(timeout=max(0.0, ends_at - time.monotonic()))
            except Empty:
                break
        return list(found)

"""What bounds a running call: its deadline, its cancellation, its progress, its clock.

A service receives a `Scope` beside the call and asks it before and during every wait. Nothing else tells a service
that it runs in a worker.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from gaia.errors import Cancelled, DeadlineExceeded

DEFAULT_DEADLINE_S: Final = 900.0

LONGEST_WAIT_S: Final = 2_000_000.0
"""About 23 days: poll(2) and epoll(7) take milliseconds in 31 bits."""


@dataclass(frozen=True)
class Clock:
    """The time, as an argument. `wall` is seconds since the epoch, `monotonic` never runs backwards."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class CancelToken:
    """Set once, from any thread; runs the callbacks registered by whoever must be woken."""

    __slots__ = ("_callbacks", "_event", "_lock", "_set", "stopping")

    def __init__(self) -> None:
        """Start unset."""
        self._set = False
        # Made by the first that waits: most calls never do, and making one costs as much as the rest of a short call.
        self._event: threading.Event | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.stopping = False
        """Whether it was the worker's end that set it, not the caller."""

    def is_set(self) -> bool:
        """Say whether the call was cancelled."""
        return self._set

    def wait(self, timeout_s: float) -> bool:
        """Wait until cancelled, at most so long; say whether it was."""
        with self._lock:
            if self._set:
                return True
            event = self._event = self._event or threading.Event()
        return event.wait(timeout_s)

    def set(self, *, stopping: bool = False) -> None:
        """Cancel, or stop because the worker ends.

        Each callback runs once, in this thread; one that raises does not keep the rest from running.
        """
        with self._lock:
            self.stopping = self.stopping or (stopping and not self._set)
            self._set = True
            if self._event is not None:
                self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        failures = []
        for callback in callbacks:
            try:
                callback()
            except Exception as failure:  # noqa: BLE001 - finish the list, then tell
                failures.append(failure)
        if failures:
            message = "cancel callbacks failed"
            raise ExceptionGroup(message, failures)

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Run the callback if the call is cancelled inside the block, at once if it already was."""
        with self._lock:
            already = self._set
            if not already:
                self._callbacks.append(callback)
        if already:
            callback()
        try:
            yield
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)


class Later(Exception):  # noqa: N818 - no error: a service's word that it wants its slot back
    """Raised by a service to give its slot back and run again later. It counts as no attempt.

    Wiring turns it into a durable delay; the call's deadline still stands.
    """

    def __init__(self, after_s: float) -> None:
        """Ask to run again after so many seconds."""
        super().__init__(after_s)
        self.after_s = after_s


class Elsewhere(Exception):  # noqa: N818 - as above
    """Raised by a service, before it did anything, for a call that belongs to another worker; wiring leads it there."""

    def __init__(self, node: str) -> None:
        """Name the worker's node."""
        super().__init__(node)
        self.node = node


def _no_progress(done: float, total: float | None, note: str) -> None:
    del done, total, note


@dataclass(slots=True, eq=False)
class Scope:
    """The bounds of one running call.

    `ends_at` is monotonic time: the deadline that the caller set as wall time is converted once, at the start, so a
    step of the clock cannot stretch it. `attempts` counts the runs of this call, this one included.
    """

    id: str
    operation: str
    ends_at: float
    cancelled: CancelToken = field(default_factory=CancelToken)
    report: Callable[[float, float | None, str], None] = _no_progress
    clock: Clock = field(default_factory=Clock)
    attempts: int = 1
    retryable: bool = True
    """A service sets it to False where another run is not to be had, whatever the call's policy says."""

    def remaining_s(self) -> float:
        """Give the seconds left until the deadline; negative when it has passed."""
        return self.ends_at - self.clock.monotonic()

    def check(self) -> None:
        """Raise `Cancelled` or `DeadlineExceeded` if the call has to end; to be asked in every loop."""
        if self.cancelled.is_set():
            raise Cancelled(self.id)
        left = self.remaining_s()
        if left <= 0:
            raise DeadlineExceeded(self.operation, round(-left, 3))

    def bound_s(self, timeout_s: float | None = None) -> float:
        """Give how long a wait may take: `timeout_s`, or what is left of the deadline if that is less.

        Raises:
            Cancelled, DeadlineExceeded: if no time is left at all.
        """
        self.check()
        left = min(max(self.remaining_s(), 0.001), LONGEST_WAIT_S)
        return left if timeout_s is None else min(timeout_s, left)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell the caller how far the call is; cheap, at most ten a second are stored."""
        self.report(done, total, note)

    @classmethod
    def lasting(
        cls, seconds: float = DEFAULT_DEADLINE_S, *, operation: str = "test", clock: Clock | None = None
    ) -> "Scope":
        """Make a scope outside a worker: for tests, scripts and warm-up."""
        clock = clock or Clock()
        return cls(id="local", operation=operation, ends_at=clock.monotonic() + seconds, clock=clock)

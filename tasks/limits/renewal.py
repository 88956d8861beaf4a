"""Renews the concurrency leases of a process until they are released.

One daemon thread, started with the first lease. A lease is renewed three times in its life; a process that is killed
renews none, so its slots are free when their time is over. A lease that cannot be renewed any more is lost: its holder
finds out by `Held.check` and has to end.
"""

import logging
import threading
from dataclasses import dataclass, field
from typing import Final

from gaia.errors import LeaseLost, Unreachable
from tasks.limits.protocols import ConcurrencyLimiter, Lease
from tasks.scope import Clock

PER_LIFE: Final = 3
CLOSE_S: Final = 2.0

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Held:
    """A lease that is being renewed. `lost` is set when somebody else may have its slots."""

    lease: Lease
    due_at: float
    lost: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise `LeaseLost` if it is lost; to be asked in every loop."""
        if self.lost.is_set():
            raise LeaseLost(self.lease.slots[0].name)


class Renewal:
    """Thread-safe; one a process."""

    def __init__(self, leases: ConcurrencyLimiter, clock: Clock | None = None) -> None:
        """Renew through a limiter."""
        self._leases = leases
        self._monotonic = (clock or Clock()).monotonic
        self._changed = threading.Condition()
        self._held: set[Held] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    def keep(self, lease: Lease) -> Held:
        """Renew a lease from now on."""
        held = Held(lease, self._monotonic() + lease.ttl_s / PER_LIFE)
        if not lease.recorded:
            return held
        with self._changed:
            self._held.add(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gaia-lease-renewal", daemon=True)
                self._thread.start()
            self._changed.notify()
        return held

    def release(self, held: Held) -> bool:
        """Renew it no more, and give its slots back; False if they were lost."""
        with self._changed:
            self._held.discard(held)
        return self._leases.release(held.lease)

    def close(self) -> None:
        """Stop renewing. What is held then lapses."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def renew_due(self) -> None:
        """Renew what is due."""
        now = self._monotonic()
        with self._changed:
            due = [each for each in self._held if each.due_at <= now]
        for each in due:
            self._renew(each, now)

    def _renew(self, held: Held, now: float) -> None:
        held.due_at = now + held.lease.ttl_s / PER_LIFE
        try:
            self._leases.renew(held.lease)
        except Unreachable as failure:
            log.warning("a lease of %s was not renewed, and is tried again: %s", held.lease.slots[0].name, failure)
        except LeaseLost as failure:
            with self._changed:
                if held in self._held:  # else it was released meanwhile
                    log.warning("%s", failure)
                    held.lost.set()
                    self._held.discard(held)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                first = min((each.due_at for each in self._held), default=None)
                self._changed.wait(None if first is None else max(0.0, first - self._monotonic()))
            self.renew_due()

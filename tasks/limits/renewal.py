"""Renews the concurrency leases of a process until they are released, and hands them over within the process.

One daemon thread, started with the first lease. A lease is renewed three times in its life; a process that is killed
renews none, so its slots are free when their time is over. A lease that cannot be renewed any more is lost: its holder
finds out by `Held.check` and has to end.

What a holder is done with lingers for 50 ms: the next request of this process for the same slots has it without a call
of Redis. So that one busy process cannot keep others out, a lease is handed over for two seconds at most.
"""

import logging
import threading
from dataclasses import dataclass, field
from math import inf
from typing import Final

from gaia.errors import LeaseLost, Unreachable
from tasks.limits.protocols import ConcurrencyLimiter, Lease, Slots
from tasks.scope import Clock

PER_LIFE: Final = 3
CLOSE_S: Final = 2.0

LINGER_S: Final = 0.05
HANDED_OVER_S: Final = 2.0

LONGEST_S: Final = 3600.0
"""Of one wait of the thread, when nothing is held."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Held:
    """A lease that is being renewed. `lost` is set when somebody else may have its slots."""

    lease: Lease
    due_at: float
    taken_at: float = 0.0
    idle_until: float = 0.0
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
        self._idle: dict[tuple[Slots, ...], list[Held]] = {}
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def keep(self, lease: Lease) -> Held:
        """Renew a lease from now on."""
        now = self._monotonic()
        held = Held(lease, now + lease.ttl_s / PER_LIFE, now)
        if not lease.recorded:
            return held
        with self._changed:
            self._held.add(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gaia-lease-renewal", daemon=True)
                self._thread.start()
            self._changed.notify()
        return held

    def take(self, slots: tuple[Slots, ...], ttl_s: float) -> Held | None:
        """Give a lease of these slots that lingers, None if there is none."""
        with self._changed:
            idle = self._idle.get(slots)
            while idle:
                held = idle.pop()
                if held in self._held and held.lease.ttl_s >= ttl_s:
                    held.idle_until = 0.0
                    return held
        return None

    def linger(self, held: Held) -> None:
        """Keep a lease for the next request of this process, or give its slots back if it had them long enough."""
        now = self._monotonic()
        with self._changed:
            keeps = held in self._held and not self._closed and now - held.taken_at < HANDED_OVER_S
            if keeps:
                held.idle_until = now + LINGER_S
                self._idle.setdefault(held.lease.slots, []).append(held)
                if held.idle_until < self._wakes_at:
                    self._changed.notify()
        if not keeps:
            self.release(held)

    def release(self, held: Held) -> bool:
        """Renew it no more, and give its slots back; False if they were lost."""
        with self._changed:
            self._held.discard(held)
        return self._leases.release(held.lease)

    def close(self) -> None:
        """Give back what lingers, and stop renewing. What is held then lapses."""
        with self._changed:
            self._closed = True
            idle = [each for held in self._idle.values() for each in held]
            self._idle.clear()
            self._changed.notify()
        for each in idle:
            self.release(each)
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def release_idle(self) -> None:
        """Give back what lingered long enough."""
        now = self._monotonic()
        over: list[Held] = []
        with self._changed:
            for slots, idle in list(self._idle.items()):
                over += (each for each in idle if each.idle_until <= now)
                idle[:] = [each for each in idle if each.idle_until > now]
                if not idle:
                    del self._idle[slots]
        for each in over:
            self.release(each)

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
                # The idle ones of a stack are in order of their time but for those that were taken and came back.
                due = [each.idle_until for idle in self._idle.values() for each in idle[:1]]
                first = min((each.due_at for each in self._held), default=inf)
                self._wakes_at = min((first, *due))
                self._changed.wait(min(LONGEST_S, max(0.0, self._wakes_at - self._monotonic())))
            self.release_idle()
            self.renew_due()

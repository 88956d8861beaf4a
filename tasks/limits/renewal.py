"""Renews the concurrency leases of a process until they are released, and hands them over within the process.

One daemon thread, started with the first lease. A lease is renewed three times in its life; a process that is killed
renews none, so its slots are free when their time is over. A lease that cannot be renewed any more is lost: its holder
finds out by `Held.check` and has to end.

What a holder is done with lingers for 200 ms: the next request of this process for the same slots has it without a
call of Redis. So that one busy process cannot keep others out, it lingers for 50 ms, and a lease is handed over for
two seconds at most, once half of the slots of a level are in use, as of the last call, and every renewal is one. A
process that asks for the same slots again and again takes them ahead: twice as many as the last time, up to 64, never
more than a fourth of what is free; those that nobody wants linger, too.

Leases of the same slots are taken, renewed and given back together, so a request costs far less than a call.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from gaia.errors import LeaseLost, Unreachable
from tasks import metrics
from tasks.limits import counting
from tasks.limits.protocols import ConcurrencyLimiter, Lease, Refused, Slots
from tasks.scope import Clock

PER_LIFE: Final = 3
CLOSE_S: Final = 2.0

LINGER_S: Final = 0.2
CROWDED_LINGER_S: Final = 0.05
HANDED_OVER_S: Final = 2.0

SOON_S: Final = 1.0
"""Whoever comes back within that time takes more leases at once than the last time."""
MOST_AHEAD: Final = 64
FORGOTTEN_S: Final = 60.0
"""After so long without a call it is forgotten how many were taken."""

LONGEST_S: Final = 3600.0
"""Of one wait of the thread, when nothing is held."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Held:
    """A lease that is being renewed. `lost` is set when somebody else may have its slots."""

    lease: Lease
    due_at: float
    taken_at: float = 0.0
    idle_since: float = 0.0
    is_lost: bool = False

    def check(self) -> None:
        """Raise `LeaseLost` if it is lost; to be asked in every loop."""
        if self.is_lost:
            raise LeaseLost(self.lease.slots[0].name)


@dataclass
class _Stack:
    """What this process has of the same slots: the idle leases, and how many it took last."""

    idle: list[Held] = field(default_factory=list)
    size: int = 0
    taken_at: float = -inf
    lent: int = 0
    is_crowded: bool = False
    """Half of the slots of a level are in use. Then what lingers already goes back sooner, too."""
    closed_until: float = -inf
    refused: Refused | None = None

    @property
    def linger_s(self) -> float:
        return CROWDED_LINGER_S if self.is_crowded else LINGER_S


class Renewal:
    """Thread-safe; one a process."""

    def __init__(self, leases: ConcurrencyLimiter, clock: Clock | None = None) -> None:
        """Renew through a limiter."""
        self._leases = leases
        self._monotonic = (clock or Clock()).monotonic
        self._changed = threading.Condition()
        self._held: set[Held] = set()
        self._stacks: dict[tuple[Slots, ...], _Stack] = {}
        self._over: list[Held] = []
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False
        metrics.LEASES.watch(self.lent)

    def lent(self) -> dict[str, int]:
        """Give how many slots of each kind of level are in use."""
        found = dict.fromkeys(counting.LEVELS, 0)
        with self._changed:
            for slots, stack in self._stacks.items():
                for each in slots:
                    found[counting.level(each.name)] += stack.lent
        return found

    def wanted(self, slots: tuple[Slots, ...]) -> int:
        """Give how many leases to take, if there is to be another one: more and more for whoever comes back soon."""
        now = self._monotonic()
        with self._changed:
            stack = self._stack(slots)
            soon = now - stack.taken_at < SOON_S
            stack.size = min(MOST_AHEAD, stack.size * 2) if soon and stack.size else 1
            stack.taken_at = now
            return stack.size

    def refused(self, slots: tuple[Slots, ...], answer: Refused) -> None:
        """Know that a level has no slot left: this process hands its own over no longer than it may."""
        with self._changed:
            stack = self._stack(slots)
            stack.size = 0
            self._crowd(stack, is_crowded=True)
            stack.refused, stack.closed_until = answer, self._monotonic() + answer.retry_after_s

    def refusal(self, slots: tuple[Slots, ...]) -> Refused | None:
        """Give the answer of a moment ago if it was a refusal: however many wait, one of them asks again in time."""
        now = self._monotonic()
        with self._changed:
            stack = self._stacks.get(slots)
            if stack is None or stack.refused is None or now >= stack.closed_until:
                return None
            return stack.refused._replace(retry_after_s=stack.closed_until - now)

    def keep(self, lease: Lease) -> Held:
        """Renew a lease from now on."""
        return self.keep_many([lease])

    def keep_many(self, leases: Sequence[Lease]) -> Held:
        """Renew leases of the same slots from now on; give the first, the others linger."""
        now = self._monotonic()
        first, *ahead = [Held(each, now + each.ttl_s / PER_LIFE, now) for each in leases]
        if not first.lease.recorded:
            return first
        with self._changed:
            stack = self._stack(first.lease.slots)
            self._crowd(stack, is_crowded=_is_crowded(first.lease.slots, first.lease.used))
            for each in ahead:
                each.idle_since = now
            stack.idle += ahead
            stack.lent += 1
            self._held.update((first, *ahead))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gaia-lease-renewal", daemon=True)
                self._thread.start()
            if ahead or first.due_at < self._wakes_at:
                self._changed.notify()
        return first

    def take(self, slots: tuple[Slots, ...], ttl_s: float) -> Held | None:
        """Give a lease of these slots that lingers, None if there is none."""
        with self._changed:
            stack = self._stacks.get(slots)
            while stack is not None and stack.idle:
                held = stack.idle.pop()
                if not held.is_lost and held.lease.ttl_s >= ttl_s:
                    stack.lent += 1
                    return held
        return None

    def linger(self, held: Held) -> None:
        """Keep a lease for the next request of this process, or give its slots back if it had them long enough."""
        now = self._monotonic()
        with self._changed:
            stack = self._stack(held.lease.slots)
            stack.lent = max(0, stack.lent - held.lease.recorded)
            recent = not stack.is_crowded or now - held.taken_at < HANDED_OVER_S
            if held not in self._held or self._closed:
                keeps = False
            else:
                # Those that are over go back together, by the thread: at once, but with whatever else is over then.
                keeps, held.idle_since = True, now
                (stack.idle if recent else self._over).append(held)
                if now + (stack.linger_s if recent else 0.0) < self._wakes_at:
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
            idle = [*self._over, *(each for stack in self._stacks.values() for each in stack.idle)]
            self._over.clear()
            self._stacks.clear()
            self._held.difference_update(idle)
            self._changed.notify()
        self._give_back(idle)
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def release_idle(self) -> None:
        """Give back what lingered long enough."""
        now = self._monotonic()
        with self._changed:
            over, self._over = self._over, []
            for slots, stack in list(self._stacks.items()):
                begun = now - stack.linger_s
                unwanted = [each for each in stack.idle if each.idle_since <= begun]
                if unwanted:
                    over += unwanted
                    stack.idle = [each for each in stack.idle if each.idle_since > begun]
                    stack.size = max(1, stack.size - len(unwanted))
                if not stack.idle and not stack.lent and now - stack.taken_at >= FORGOTTEN_S:
                    del self._stacks[slots]
            self._held.difference_update(over)
        self._give_back(over)

    def renew_due(self) -> None:
        """Renew what is due, and with it what will be soon."""
        now = self._monotonic()
        due: dict[tuple[tuple[Slots, ...], float], list[Held]] = defaultdict(list)
        with self._changed:
            overdue = {(each.lease.slots, each.lease.ttl_s) for each in self._held if each.due_at <= now}
            for each in self._held if overdue else ():
                like = (each.lease.slots, each.lease.ttl_s)
                if like in overdue and each.due_at <= now + like[1] / PER_LIFE / 2:
                    due[like].append(each)
        for (slots, ttl_s), found in due.items():
            self._renew(slots, found, now + ttl_s / PER_LIFE)

    def _renew(self, slots: tuple[Slots, ...], due: Sequence[Held], next_at: float) -> None:
        for each in due:
            each.due_at = next_at
        try:
            lost, used = self._leases.renew_many([each.lease for each in due])
        except Unreachable as failure:
            log.warning("%d leases of %s were not renewed; they are tried again: %s", len(due), slots[0].name, failure)
            return
        with self._changed:
            self._crowd(self._stack(slots), is_crowded=_is_crowded(slots, used))
            gone = {lease.id: name for lease, name in lost}
            for each in due:
                if each.lease.id in gone and each in self._held:  # else it was released meanwhile
                    log.warning("%s", LeaseLost(gone[each.lease.id]))
                    each.is_lost = True
                    self._held.discard(each)

    def _give_back(self, held: Sequence[Held]) -> None:
        alike: dict[tuple[Slots, ...], list[Lease]] = defaultdict(list)
        for each in held:
            alike[each.lease.slots].append(each.lease)
        for leases in alike.values():
            self._leases.release_many(leases)

    def _crowd(self, stack: _Stack, *, is_crowded: bool) -> None:
        if is_crowded and not stack.is_crowded and stack.idle:
            self._changed.notify()  # its time may have come
        stack.is_crowded = is_crowded

    def _stack(self, slots: tuple[Slots, ...]) -> _Stack:
        found = self._stacks.get(slots)
        if found is None:
            found = self._stacks[slots] = _Stack()
        return found

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                # The idle ones of a stack are in the order in which they go back.
                due = [each.idle_since + stack.linger_s for stack in self._stacks.values() for each in stack.idle[:1]]
                due += [-inf] if self._over else []
                first = min((each.due_at for each in self._held), default=inf)
                self._wakes_at = min((first, *due))
                self._changed.wait(min(LONGEST_S, max(0.0, self._wakes_at - self._monotonic())))
            self.release_idle()
            self.renew_due()


def _is_crowded(slots: Sequence[Slots], used: Sequence[int]) -> bool:
    return any(2 * count > each.limit and not each.shadow for each, count in zip(slots, used, strict=False))

"""The messages this process holds: their leases, and what is to be committed of them.

    fetched -> running -> ended (a commit waits for the next turn) -> committed
        |         |-> lost: somebody else may run it by now -> told to stop -> given back, if it came here again
        |-> given back

One `Holder` a process and broker, older than any connection: a message that was fetched over a connection that broke
is renewed and committed over the next one. Redis is authoritative (`unacked`, `unacked_index`, `held`); the tables
here say what this process believes, and every commit is checked against the fence in Redis. If the process dies, its
leases lapse and the first worker to sweep restores its messages. If it is only stopped for longer than a lease, its
commits are refused: somebody else holds the message by then. If it is this process that fetches such a message again
while its old run goes on, that run goes on under the new lease: a process never runs a message twice at once.

Its `Upkeep` is the thread that renews the leases.
"""

import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf, nan
from typing import Any, Final

from gaia import wire
from tasks import metrics
from tasks.broker.keeper import Commit, Keeper
from tasks.broker.lease import Lease, Returning
from tasks.broker.reading import waiting_again
from tasks.broker.storing import Outcome, Storer
from tasks.broker.upkeep import SWEEP_S, Upkeep

SHORT_S: Final = 0.05
"""Calls that run for less are fetched ahead: the next one is at hand when a slot falls free."""

MANY: Final = 8
"""Calls held at once, from which on turns are shared: who waits for one of a few is to have its result at once."""

SMOOTHING: Final = 0.05
"""Weight of the latest call in the moving average."""

log = logging.getLogger(__name__)


class Holder:
    """What one process holds of one broker. Thread-safe."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._token: Final = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._turns = 0
        self._leases: dict[str, Lease] = {}
        self._waiting: dict[str, float] = {}
        self._storing: set[str] = set()
        self._returning: dict[str, Returning] = {}
        self.renewed_at = float("-inf")
        """All leases of before this monotonic time were renewed then, but for those known to be lost."""
        self._results: dict[str, tuple[str, bytes | str, int]] = {}
        self._actions: dict[str, tuple[str, str, str]] = {}
        self._commits: list[Commit] = []
        self._under_way: dict[tuple[str, str], None] = {}
        self._suspect: str | None = None
        self._upkeep: Upkeep | None = None
        self._leaving = threading.Event()
        self._held_s = 2 * SHORT_S
        self._asleep = False
        self.wake: Callable[[], None] | None = None
        """Ends the wait of the loop that takes turns, so that a commit does not wait for its next one."""
        self.on_lost: Callable[[str], None] | None = None
        """Told the id of a running call whose lease was lost."""
        self.slots: int | None = None
        """How many calls run at once, if it is known; beyond that, only short ones are fetched ahead."""
        self.deadline_s = wire.DEFAULT_DEADLINE_S
        """The deadline of a call that brings none."""
        self.storer: Storer | None = None
        """Stores results before their messages are committed, if they lie in another Redis."""
        self.delivery_cap = 3
        """Lost leases at which a call is a dead letter; with one less it is suspect."""

    # --- turns

    def room(self) -> int:
        """Give how many more messages may be fetched: one for each free slot, and as many again while calls are short.

        With every slot and the same again taken, a call is held for twice as long as it runs.
        """
        if self.slots is None:
            return sys.maxsize
        with self._lock:
            most = 2 * self.slots if self._held_s < 2 * SHORT_S else self.slots
            return max(0, most - len(self._leases))

    def pace_s(self) -> float:
        """Give how far apart turns may be: a twentieth of the time that calls are held.

        Nothing while calls are few, or one is to go back: until that is committed it is lost with this worker.
        """
        with self._lock:
            is_calm = len(self._leases) >= MANY and not any(each.action for each in self._commits)
            return self._held_s / 20 if is_calm else 0.0

    def fence(self) -> str:
        """Give a new fence for the messages of one turn."""
        with self._lock:
            self._turns += 1
            return f"{self._token}:{self._turns}"

    def fetched(self, tag: str, fence: str, until: float, message: Mapping[str, Any]) -> bool:
        """Take a message into the table; False if a run of it still goes on here, which has the lease from now on."""
        with self._lock:
            old = self._leases.get(tag)
            if old is not None:
                metrics.DUPLICATES.labels("running").inc()
                self._leases[tag] = old._replace(fence=fence, is_lost=False)
                return False
            self._leases[tag] = Lease(fence, time.monotonic(), until, message)
            return True

    @property
    def suspect_from(self) -> int:
        """Give the number of lost leases from which a call is suspect of killing workers: it has one chance left."""
        return max(1, self.delivery_cap - 1)

    def admit(self, tag: str, lost: int) -> bool:
        """Say whether a message may run now: suspects run one at a time, so that none is taken for another.

        The others are at risk once each, and no more.
        """
        if lost < self.suspect_from:
            return True
        with self._lock:
            if self._suspect is not None and self._suspect in self._leases:
                return False
            self._suspect = tag
            return True

    def holds(self, tag: str) -> bool:
        """Say whether a message is held and not ended."""
        return tag in self._leases

    def may_store(self, tag: str) -> bool | None:
        """Say whether a result may be stored elsewhere; None if the lease is not certain now.

        A message whose lease was lost ends with that: somebody else runs it, and its commit is refused.
        """
        with self._lock:
            lease = self._leases.get(tag)
            if lease is None:
                return False
            if lease.is_lost:
                self._end(tag, ("", "", 0))
                return False
            return True if lease.is_certain(self.renewed_at) else None

    def was_told(self, tag: str) -> bool:
        """Say whether a run was told to stop because its lease was lost."""
        lease = self._leases.get(tag)
        return lease is not None and lease.was_told

    def wait(self, tag: str, since: float) -> None:
        """Say that a message waits for a free slot since a monotonic time: `start` is called with it before it runs.

        One that waits since `inf` is never overdue.
        """
        self._waiting[tag] = since

    def start(self, tag: str, since: float) -> bool:
        """Say that a message's run begins; False if it must not, since the message was given back.

        It may be here again by then, and wait behind others: since another time.
        """
        with self._lock:
            if self._waiting.get(tag) != since:
                return False
            del self._waiting[tag]
            return tag in self._leases

    # --- what is to become of a message

    def result(self, tag: str, key: str, value: bytes | str, ttl_s: int) -> bool:
        """Let a result travel with the commit of its message; False if the message is not held here."""
        with self._lock:
            if tag not in self._leases:
                return False
            self._results[tag] = (key, value, ttl_s)
            return True

    def postpone(self, tag: str, due_at: float, *, retries: int | None = None, again: bool = False) -> bool:
        """Let a message wait in Redis until `due_at` (seconds since the epoch) when it ends.

        With `again` it had a run: it says so, and comes back with another count of `retries` if there is one. False if
        the message is not held here.
        """
        lease = self._leases.get(tag)
        if lease is None:
            return False
        told = {} if retries is None else {"retries": retries, "eta": None}
        changed = waiting_again(lease.message, due_at, told) if again else ""
        return self._act(tag, "delay", f"{due_at:.6f}", changed)

    def put_aside(self, tag: str, operation: str) -> bool:
        """Let a message wait for a paused operation when it ends."""
        return self._act(tag, "aside", operation, "")

    def move(self, tag: str, queue: str, now: float) -> bool:
        """Put a message on another queue when it ends; it says that it waits there since `now`."""
        lease = self._leases.get(tag)
        return lease is not None and self._act(tag, "move", queue, waiting_again(lease.message, now, {}))

    def bury(self, tag: str, reason: str, error: str, *, kind: str = "refused") -> bool:
        """Make a message a dead letter when it ends; `kind` is one of `metrics.LETTERS`."""
        is_held = self._act(tag, "bury", reason, error)
        if is_held:
            metrics.DEAD_LETTERS.labels(kind).inc()
        return is_held

    def _act(self, tag: str, action: str, first: str, second: str) -> bool:
        with self._lock:
            if tag not in self._leases:
                return False
            self._actions[tag] = (action, first, second)
            return True

    def end(self, tag: str) -> None:
        """Commit a message with the next turn: its result, and what else is to become of it.

        A result that is stored elsewhere comes first: the message is held until then.
        """
        with self._lock:
            result = self._results.pop(tag, ("", "", 0))
            self._waiting.pop(tag, None)
            if self.storer is not None and result[0] and tag in self._leases:
                self._storing.add(tag)
                self.storer.put(Outcome(self, tag, *result))
                return
            self._end(tag, result)
            wake = self.wake if self._asleep and self._commits else None
            self._asleep = self._asleep and not self._commits
        if wake is not None:
            wake()

    def _end(self, tag: str, result: tuple[str, bytes | str, int]) -> None:
        lease = self._leases.pop(tag, None)
        self._storing.discard(tag)
        action = self._actions.pop(tag, ("", "", ""))
        if lease is not None:
            self._commits.append(Commit(tag, lease.fence, *result, *action))
            self._held_s += SMOOTHING * (time.monotonic() - lease.since - self._held_s)

    def held(self) -> list[str]:
        """Give the tags of what is held and not ended, the first fetched first."""
        with self._lock:
            return list(self._leases)

    # --- giving back

    def give_back(self, tags: Iterable[str], where: str) -> None:
        """Give messages back to their lists, to be fetched "next", in the order given, or "last".

        The thread of the leases sends them, at once, and again each second until the server takes them. Until then
        their leases are renewed: nothing was lost, and it must not count as that.
        """
        with self._lock:
            self._give_back(list(tags), where)

    def give_back_waiting(self, before: float = inf) -> list[str]:
        """Give back what waits for a slot here since before a monotonic time, to be fetched next; give the tags.

        If some wait for so long, calls are longer than they were: none are fetched ahead until they are short again.
        """
        with self._lock:
            # In one step: what waits now may run a moment later.
            found = self._give_back([tag for tag in self._leases if self._waiting.get(tag, nan) <= before], "next")
            if found and before < inf:
                self._held_s = max(self._held_s, time.monotonic() - before)
            return found

    def _give_back(self, tags: list[str], where: str) -> list[str]:
        found = [tag for tag in tags if tag in self._leases]
        for tag in found:
            self._returning.pop(tag, None)  # of an earlier fetch: it would keep that one's place
            self._returning[tag] = Returning(self._leases.pop(tag).fence, where)
            self._waiting.pop(tag, None)
            self._storing.discard(tag)
            self._results.pop(tag, None)
            self._actions.pop(tag, None)
        if found and self._upkeep is not None:
            self._upkeep.hurry()
        return found

    def returning(self) -> dict[str, Returning]:
        """Give what is to be given back, by its tag, in order."""
        with self._lock:
            return dict(self._returning)

    def returned(self, given: Mapping[str, Returning]) -> None:
        """Forget what the server has taken back."""
        with self._lock:
            for tag, each in given.items():
                self._forget_returning(tag, each.fence)

    def _forget_returning(self, tag: str, fence: str) -> None:
        found = self._returning.get(tag)
        if found is not None and found.fence == fence:
            del self._returning[tag]

    # --- commits

    @property
    def has_commits(self) -> bool:
        """Say whether a turn has something to commit."""
        return bool(self._commits)

    def sleeps(self) -> bool:
        """Say whether the loop may go to sleep: then the next end wakes it."""
        with self._lock:
            self._asleep = not self._commits
            return self._asleep

    def take_commits(self, most: int = 500) -> list[Commit]:
        """Give the commits for a turn; `put_back` returns those that did not arrive, `arrived` says that they did."""
        with self._lock:
            taken, self._commits = self._commits[:most], self._commits[most:]
            self._under_way.update(dict.fromkeys((each.tag, each.fence) for each in taken))
            return taken

    def arrived(self, commits: list[Commit]) -> None:
        """Forget commits that the server has answered."""
        metrics.COMMITTED.inc(len(commits))
        with self._lock:
            self._forget(commits)

    def _forget(self, commits: list[Commit]) -> None:
        for each in commits:
            self._under_way.pop((each.tag, each.fence), None)

    def put_back(self, commits: list[Commit]) -> None:
        """Commit again with the next turn: repeating a commit changes nothing, its fence is gone."""
        with self._lock:
            self._forget(commits)
            self._commits = commits + self._commits

    # --- leases

    def keep(self, keeper: Keeper, *, pause_s: float = SWEEP_S) -> None:
        """Renew and sweep through this keeper from now on, in a thread; later keepers of the process are not needed."""
        with self._lock:
            if self._upkeep is not None:
                keeper.close()
                return
            self._upkeep = Upkeep(self, keeper, pause_s)
            self._upkeep.start()

    @property
    def keeper(self) -> Keeper | None:
        """Give what the thread uses."""
        return None if self._upkeep is None else self._upkeep.keeper

    def leave(self) -> None:
        """Say that the worker begins to end: the thread sends the commits from now on. Again changes nothing."""
        self._leaving.set()
        if self._upkeep is not None:
            self._upkeep.hurry()

    @property
    def is_leaving(self) -> bool:
        """Say whether the worker ends: nothing more is fetched."""
        return self._leaving.is_set()

    def close(self) -> None:
        """Send the last commits and give back what is held, to be fetched next.

        That takes milliseconds, and 15 s at most with a server that hangs.
        """
        self.leave()
        if self._upkeep is not None:
            self._upkeep.close()

    def due(self) -> list[tuple[str, str]]:
        """Give the tags and fences to be renewed."""
        now = time.monotonic()
        with self._lock:
            # What waits to be committed is renewed too, and what was sent and not answered: the connection may be half
            # open. Of one that has arrived meanwhile the lease is gone, and so is its entry here.
            waiting = [*self._under_way, *((each.tag, each.fence) for each in self._commits)]
            # What waits for a slot is refused when it starts; an outcome that waits for its store is not run for again.
            patient = self._waiting.keys() | self._storing
            for tag, lease in self._leases.items():
                if (lease.until > now or tag in patient) and not lease.is_lost:
                    waiting.append((tag, lease.fence))
            return waiting + [(tag, each.fence) for tag, each in self._returning.items()]

    def lose(self, tag: str, fence: str) -> None:
        """Tell the run of a message that somebody else may hold it by now."""
        with self._lock:
            self._forget_returning(tag, fence)
            lease = self._leases.get(tag)
            if lease is None or lease.fence != fence or lease.is_lost:
                return  # it has ended, or came here again
            self._leases[tag] = lease._replace(is_lost=True, was_told=True)
        metrics.LEASES_LOST.inc()
        log.warning("the lease of message %s was lost: somebody else may run it now", tag)
        call_id = lease.message.get("headers", {}).get("id")
        if self.on_lost is not None and isinstance(call_id, str):
            self.on_lost(call_id)

"""The messages this process holds: their leases, and what is to be committed of them.

    fetched -> running -> ended (a commit waits for the next turn) -> committed
                  |-> given back

One `Holder` a process and broker, older than any connection: a message that was fetched over a connection that broke
is renewed and committed over the next one. Redis is authoritative (`unacked`, `unacked_index`, `held`); the tables
here say what this process believes, and every commit is checked against the fence in Redis. If the process dies, its
leases lapse and the first worker to sweep restores its messages. If it is only stopped for longer than a lease, its
commits are refused: somebody else holds the message by then.
"""

import json
import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError

SHORT_S: Final = 0.05
"""Calls that run for less are fetched ahead: the next one is at hand when a slot falls free."""

SMOOTHING: Final = 0.05
"""Weight of the latest call in the moving average."""

log = logging.getLogger(__name__)


class Lease(NamedTuple):
    """A held message. `until` is monotonic time: past it the lease is not renewed, since the call is overdue."""

    fence: str
    since: float
    until: float
    message: Mapping[str, Any]


class Commit(NamedTuple):
    """The end of a message: it leaves the held ones, and with it goes its result, both or neither."""

    tag: str
    fence: str
    key: str = ""
    value: bytes | str = ""
    ttl_s: int = 0
    action: str = ""
    first: str = ""
    second: str = ""

    def arguments(self) -> tuple[Any, ...]:
        """Give what the turn script takes."""
        return self


class Holder:
    """What one process holds of one broker. Thread-safe."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._token: Final = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._turns = 0
        self._leases: dict[str, Lease] = {}
        self._results: dict[str, tuple[str, bytes | str, int]] = {}
        self._actions: dict[str, tuple[str, str, str]] = {}
        self._commits: list[Commit] = []
        self._renewing: threading.Thread | None = None
        self._renew: Callable[[list[tuple[str, str]]], Iterable[str]] | None = None
        self._held_s = 2 * SHORT_S
        self.slots: int | None = None
        """How many calls run at once, if it is known; beyond that, only short ones are fetched ahead."""
        self.stopping = False
        """Set when the worker ends: what is still held then is given back, not kept for another connection."""

    def room(self) -> int:
        """Give how many more messages may be fetched: one for each free slot, and as many again while calls are short.

        With every slot and the same again taken, a call is held for twice as long as it runs.
        """
        if self.slots is None:
            return sys.maxsize
        with self._lock:
            most = 2 * self.slots if self._held_s < 2 * SHORT_S else self.slots
            return max(0, most - len(self._leases))

    def fence(self) -> str:
        """Give a new fence for the messages of one turn."""
        with self._lock:
            self._turns += 1
            return f"{self._token}:{self._turns}"

    def fetched(self, tag: str, fence: str, until: float, message: Mapping[str, Any]) -> None:
        """Take a message into the table."""
        with self._lock:
            self._leases[tag] = Lease(fence, time.monotonic(), until, message)

    def holds(self, tag: str) -> bool:
        """Say whether a message is held and not ended."""
        with self._lock:
            return tag in self._leases

    def result(self, tag: str, key: str, value: bytes | str, ttl_s: int) -> bool:
        """Let a result travel with the commit of its message; False if the message is not held here."""
        with self._lock:
            if tag not in self._leases:
                return False
            self._results[tag] = (key, value, ttl_s)
            return True

    def postpone(self, tag: str, due_at: float, *, retries: int | None = None) -> bool:
        """Let a message wait in Redis until `due_at` (seconds since the epoch) when it ends.

        With `retries`, it comes back with that count. False if the message is not held here.
        """
        lease = self._leases.get(tag)
        if lease is None:
            return False
        changed = "" if retries is None else _with_retries(lease.message, retries)
        return self._act(tag, "delay", f"{due_at:.6f}", changed)

    def put_aside(self, tag: str, operation: str) -> bool:
        """Let a message wait for a paused operation when it ends."""
        return self._act(tag, "aside", operation, "")

    def move(self, tag: str, queue: str) -> bool:
        """Put a message on another queue when it ends."""
        return self._act(tag, "move", queue, "")

    def bury(self, tag: str, reason: str, error: str) -> bool:
        """Make a message a dead letter when it ends."""
        return self._act(tag, "bury", reason, error)

    def _act(self, tag: str, action: str, first: str, second: str) -> bool:
        with self._lock:
            if tag not in self._leases:
                return False
            self._actions[tag] = (action, first, second)
            return True

    def end(self, tag: str) -> None:
        """Commit a message with the next turn: its result, and what else is to become of it."""
        with self._lock:
            lease = self._leases.pop(tag, None)
            result = self._results.pop(tag, ("", "", 0))
            action = self._actions.pop(tag, ("", "", ""))
            if lease is not None:
                self._commits.append(Commit(tag, lease.fence, *result, *action))
                self._held_s += SMOOTHING * (time.monotonic() - lease.since - self._held_s)

    def drop(self, tags: Iterable[str]) -> list[tuple[str, str]]:
        """Forget messages that are given back; give their tags and fences."""
        with self._lock:
            found = [(tag, self._leases.pop(tag).fence) for tag in list(tags) if tag in self._leases]
            for tag, _ in found:
                self._results.pop(tag, None)
                self._actions.pop(tag, None)
            return found

    def held(self) -> list[str]:
        """Give the tags of what is held and not ended."""
        with self._lock:
            return list(self._leases)

    @property
    def has_commits(self) -> bool:
        """Say whether a turn has something to commit."""
        return bool(self._commits)

    def take_commits(self, most: int = 500) -> list[Commit]:
        """Give the commits for a turn; `put_back` returns those that did not arrive."""
        with self._lock:
            taken, self._commits = self._commits[:most], self._commits[most:]
            return taken

    def put_back(self, commits: list[Commit]) -> None:
        """Commit again with the next turn: repeating a commit changes nothing, its fence is gone."""
        with self._lock:
            self._commits = commits + self._commits

    def renew_through(self, renew: Callable[[list[tuple[str, str]]], Iterable[str]], interval_s: float) -> None:
        """Renew the leases over this connection from now on, every so many seconds."""
        with self._lock:
            self._renew = renew
            if self._renewing is None:
                self._renewing = threading.Thread(
                    target=self._keep_renewing, args=(interval_s,), name="gaia-lease", daemon=True
                )
                self._renewing.start()

    def _keep_renewing(self, interval_s: float) -> None:
        pause = threading.Event()
        while not pause.wait(interval_s):
            renew, due = self._renew, self._due()
            if renew is None or not due:
                continue
            try:
                lost = list(renew(due))
            except (RedisError, OSError) as failure:
                log.warning("leases could not be renewed: %s", type(failure).__name__)
                continue
            for tag in lost:
                if self.holds(tag):
                    log.warning("the lease of message %s was lost: somebody else runs it now", tag)

    def _due(self) -> list[tuple[str, str]]:
        now = time.monotonic()
        with self._lock:
            # What waits to be committed is renewed too: a broken connection may keep it waiting.
            waiting = [(each.tag, each.fence) for each in self._commits]
            return waiting + [(tag, lease.fence) for tag, lease in self._leases.items() if lease.until > now]


def _with_retries(message: Mapping[str, Any], retries: int) -> str:
    """Give the text of a message with another count of retries, and without what the turn has told of it."""
    properties = {name: value for name, value in message["properties"].items() if not name.startswith("gaia_")}
    headers = {**message["headers"], "retries": retries, "eta": None}
    return json.dumps({**message, "headers": headers, "properties": properties})


_holders: dict[str, Holder] = {}
_lock = threading.Lock()
_slots: int | None = None


def holder(broker: str) -> Holder:
    """Give the holder of a broker, one a process."""
    with _lock:
        found = _holders.setdefault(broker, Holder())
        found.slots = _slots
        return found


def holding(tag: str) -> Holder | None:
    """Give whoever in this process holds a message."""
    return next((each for each in list(_holders.values()) if each.holds(tag)), None)


def limit(slots: int) -> None:
    """Tell every holder of this process, also those to come, how many calls run at once."""
    global _slots  # noqa: PLW0603 - one number a process, set once before its first connection
    with _lock:
        _slots = slots
        for each in _holders.values():
            each.slots = slots


def stopping() -> None:
    """Tell every holder that the worker ends."""
    for each in list(_holders.values()):
        each.stopping = True

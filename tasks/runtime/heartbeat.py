"""The thread by which a worker says that it lives, and answers what nodes that have gone left behind.

    beating -> withdrawn -> closed
       |-> taken: another process has the name

The heartbeat lies in Redis and lapses by itself; if this process dies, others notice by that. Withdrawn, at the
beginning of a drain, the node is not alive to callers any more: nothing fetches from its queue. When it is closed, what
came back to its queue meanwhile is answered, too.

A name belongs to one process at a time. `claim` waits for a heartbeat that nobody renews to lapse; a process that finds
its name taken later, since it was stopped for longer than a life, has to end.
"""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import redis
from redis.exceptions import RedisError

from gaia.store import nodes
from gaia.store.nodes import LIFE_S, Node, Orphan
from tasks import metrics

RETRY_S: Final = 0.5
"""After a beat that failed. An outage of Redis outlasts a life, so the first moment after it counts."""

ANSWERING_S: Final = nodes.BEAT_S
"""For the answers after one beat: the next must not wait for them, or this node would be taken for gone."""

LOOK_S: Final = 0.2
"""Between two looks at a heartbeat that may lapse."""

log = logging.getLogger(__name__)


class NameTaken(Exception):  # noqa: N818 - a state
    """Another process has the node's name, and lives."""


class Heartbeat:
    """The heartbeat of one process."""

    def __init__(
        self,
        client: redis.Redis,
        node: Node,
        answer: Callable[[bytes], None],
        *,
        taken: Callable[[], None],
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """Beat for `node` over `client`.

        `answer` takes each orphaned message; `look` is called after each beat, for those on no queue. `taken` is called
        once, in the thread, if another process has the name.
        """
        self._client = client
        self._node = node
        self._answer = answer
        self._taken = taken
        self._look = look
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._live, name="gaia-heartbeat", daemon=True)

    def claim(self, *, has_ended: Callable[[Node], bool]) -> None:
        """Take the name, with the first beat.

        Waits for the heartbeat of another boot to lapse, a life and a second at most, unless its process `has_ended`.
        With Redis away the name is taken by a later beat.

        Raises:
            NameTaken: if the other goes on beating.
        """
        seen_at: float | None = None
        gives_up_at = time.monotonic() + LIFE_S + 1
        replaces = ""
        while True:
            if self._tell(partial(nodes.beat, first=True, replaces=replaces)) is not None:
                return
            other = nodes.holder_of(self._client, self._node.name)
            if other is None:
                continue
            if (seen_at is not None and other.seen_at > seen_at) or time.monotonic() >= gives_up_at:
                raise NameTaken(
                    f"a worker called {self._node.name} lives already, with pid {other.pid} on {other.host}: "
                    "give this one a name of its own"
                )
            seen_at, replaces = other.seen_at, other.boot if has_ended(other) else ""
            if not replaces:
                self._leaving.wait(LOOK_S)

    def start(self) -> None:
        """Go on beating in the thread."""
        self._thread.start()

    def withdraw(self) -> None:
        """Take the node from the living; returns at once, so that a signal handler may call it."""
        self._leaving.set()

    def close(self) -> None:
        """End the thread, and answer what is left on the node's queue."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15)
        self._tell(nodes.leave)

    def _live(self) -> None:
        pause_s = nodes.BEAT_S
        while not self._leaving.wait(pause_s):
            heard = self._tell(nodes.beat)
            if heard is None:
                log.error("another worker is called %s by now: this one ends", self._node.name)
                self._taken()
                return
            pause_s = nodes.BEAT_S if heard else RETRY_S
        self._tell(nodes.leave)

    def _tell(self, command: Callable[[redis.Redis, Node], list[Orphan] | None]) -> bool | None:
        """Run a command and answer the orphans it gives; False if Redis did not answer, None if the name is taken."""
        try:
            found = command(self._client, self._node)
            if found is None:
                return None
            ends_at = time.monotonic() + ANSWERING_S
            while found and (answered := self._answered(found, ends_at)):
                found = nodes.orphans(self._client, answered)
            self._look()
        except (RedisError, OSError) as failure:
            metrics.BROKER_FAILURES.labels("heartbeat").inc()
            log.warning("the heartbeat failed: %s", type(failure).__name__)
            return False
        except Exception:
            # A thread that ended here would have this worker taken for dead.
            log.exception("a look at what was put aside failed")
        return True

    def _answered(self, found: list[Orphan], ends_at: float) -> list[Orphan]:
        """Answer orphans until `ends_at` (monotonic); give those that were."""
        answered = []
        for name, message in found:
            if time.monotonic() >= ends_at:
                break
            try:
                self._answer(message)
            except (RedisError, OSError):
                raise
            except Exception:
                # The others have callers, too.
                log.exception("an orphaned message could not be answered")
            else:
                metrics.ORPHANS.inc()
                answered.append((name, message))
        return answered

"""Results that lie in another Redis than the queue: first they are stored there, then their messages are committed.

    a run ends -> Holder.end -> Storer: SET and PUBLISH there -> Holder.end -> the commit, with the next turn

While that Redis is away outcomes wait in the memory of the worker that has them. Their messages stay held and their
leases are renewed, so nobody runs them again, and each takes a place of the worker: once all are taken it fetches
nothing more. A worker that dies with them loses what it knows, not the calls: their leases lapse, and they run again.
"""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

import redis
from redis.exceptions import RedisError

from gaia.store.connection import show_url
from tasks import metrics

if TYPE_CHECKING:
    from tasks.broker.holder import Holder

PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Between tries; the last again and again."""

LOOK_S: Final = 1.0
"""From one look at a store that is away to the next, while nothing is to be stored."""

MOST: Final = 500
"""Results that are sent at once."""

LAST_S: Final = 4.0
"""For what is left when the worker ends, if it has no time of its own left: a reply may take three seconds."""

TOLD_AFTER_S: Final = 3.0
"""A store that is away for so long makes its worker unready."""

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """A result, and whose message it ends."""

    holder: "Holder"
    tag: str
    key: str
    value: bytes | str
    ttl_s: int


class Storer:
    """One thread a process, over a connection of its own. `start`, then `put` from any thread, then `close`."""

    def __init__(self, client: "redis.Redis", url: str) -> None:
        """Store through `client`, which bounds how long a reply takes and tries nothing again."""
        self._client = client
        self._where = show_url(url)
        self._given: SimpleQueue[Outcome | None] = SimpleQueue()
        self._ended = False
        self._away_since: float | None = None
        self._thread: threading.Thread | None = None
        self._patient_until = float("-inf")

    def start(self) -> None:
        """Begin, and see whether the store answers; after `close` once more, with another worker of the process."""
        if self._thread is None or not self._thread.is_alive():
            self._ended = False
            self._thread = threading.Thread(target=self._live, name="gaia-results", daemon=True)
            self._thread.start()

    def put(self, outcome: Outcome) -> None:
        """Store an outcome soon, then end its message."""
        self._given.put(outcome)

    def close(self, patience_s: float = 0.0) -> None:
        """Store what is left, within `patience_s` and the time of a last reply."""
        self._patient_until = time.monotonic() + patience_s
        self._given.put(None)
        if self._thread is not None:
            self._thread.join(patience_s + LAST_S)

    def trouble(self) -> list[str]:
        """Give why results cannot be stored, if that has been so for some seconds."""
        if self._thread is not None and not self._thread.is_alive() and not self._ended:
            return ["the thread that stores results has ended"]
        since = self._away_since
        if since is None or time.monotonic() - since < TOLD_AFTER_S:
            return []
        return [f"results cannot be stored at {self._where}, for {time.monotonic() - since:.0f} s"]

    # --- in the thread

    def _live(self) -> None:
        left: list[Outcome] = []
        tries = 0
        with suppress(Exception):  # it is said below, again and again
            self._look()
        # What is left when the worker's time is over is given back with what is held.
        while not self._ended or (left and time.monotonic() < self._patient_until):
            fresh = self._fresh(self._pause_s(tries) if left else None if self._away_since is None else LOOK_S)
            left += fresh
            try:
                if left:
                    left = self._stored(left)
                elif not self._ended:
                    self._look()
            except Exception as failure:
                # A thread that ended here would keep every call of the worker from its end.
                log.exception("the thread of the results failed")
                self._failed(failure)
            tries = tries + 1 if left else 0

    @staticmethod
    def _pause_s(tries: int) -> float:
        return PAUSES_S[min(tries, len(PAUSES_S)) - 1]

    def _fresh(self, wait_s: float | None) -> list[Outcome]:
        """Wait for outcomes, and give those that there are: none if none came in time."""
        found: list[Outcome] = []
        with suppress(Empty):
            each = self._given.get(timeout=wait_s)
            while each is not None:
                found.append(each)
                if len(found) == MOST:
                    return found
                each = self._given.get_nowait()
            self._ended = True
        return found

    def _look(self) -> None:
        """See whether the store answers: a wrong address would show with the first result only."""
        try:
            self._client.ping()
        except (RedisError, OSError) as failure:
            self._failed(failure)
        else:
            self._answered()

    def _stored(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Store what is still held, end it, and give what could not be stored."""
        may = [(each, each.holder.may_store(each.tag)) for each in outcomes]
        wanted, left = [each for each, so in may if so], [each for each, so in may if so is None]
        if not wanted:
            return left
        try:
            replies = self._sent(wanted)
        except (RedisError, OSError) as failure:
            self._failed(failure)
            return left + wanted
        stored, refused = [], []
        for each, reply in zip(wanted, replies, strict=True):
            if isinstance(reply, Exception):
                self._failed(reply)
                refused.append(each)
            else:
                each.holder.end(each.tag)
                stored.append(each)
        if not refused:
            self._answered()
        self._announce(stored)
        return left + refused

    def _sent(self, outcomes: Sequence[Outcome]) -> list[object]:
        with self._client.pipeline(transaction=False) as pipe:
            for each in outcomes:
                pipe.set(each.key, each.value, ex=each.ttl_s)
            return list(pipe.execute(raise_on_error=False))

    def _announce(self, stored: Sequence[Outcome]) -> None:
        """Tell who waits, Celery's clients too; whoever misses it reads what is stored."""
        with suppress(RedisError, OSError), self._client.pipeline(transaction=False) as pipe:
            for each in stored:
                pipe.publish(each.key, each.value)
            pipe.execute(raise_on_error=False)

    def _answered(self) -> None:
        if self._away_since is not None:
            self._away_since = None
            log.warning("results can be stored at %s again", self._where)

    def _failed(self, failure: Exception) -> None:
        metrics.BROKER_FAILURES.labels("results").inc()
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning(
                "results cannot be stored at %s (%s): they wait here, and their calls stay held",
                self._where,
                type(failure).__name__,
            )

"""A kombu channel that fetches by turns: one script call commits what ended and fetches what may start.

The fetch connection is always in one of these states, owned by the loop's thread:

    idle     nothing is sent; the next tick sends a turn if there is room or something to commit
    turn     the script was sent; its reply holds messages, or none
    arming   after an empty turn: the server was asked to remember the lists, see `tasks.broker.wait`
    waiting  armed: the server pushes one word at the first write to any list

What is held outlives the channel, in the process's `Holder`.
"""

import logging
import select
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from redis.exceptions import NoScriptError, ResponseError

from gaia import wire
from gaia.store import keys
from tasks import metrics
from tasks.broker import holders, jsontext
from tasks.broker.arrivals import Arrivals
from tasks.broker.binding import Binding
from tasks.broker.events import Announcing
from tasks.broker.gathering import Gathering
from tasks.broker.holder import Holder
from tasks.broker.keeper import LEASE_S, Commit, Keeper, held_keys, turn_arguments
from tasks.broker.qos import QoS
from tasks.broker.reading import due_at, flaw_of, paused_in, renewed_until
from tasks.broker.scripts import SHARED_KEYS, TURN, TURN_SHA
from tasks.broker.upkeep import warn_of
from tasks.broker.wait import Wait

if TYPE_CHECKING:
    from kombu.transport.redis import Channel as Base
else:
    Base = object

log = logging.getLogger(__name__)

MOST_PERTURN: Final = 256
"""Bounds the time for which one script call keeps others waiting, and Lua's unpack."""

RECHECK_S: Final = 1.0
"""An armed wait is looked after so often; a lost push delays a message by no more."""

REPLY_BOUND_S: Final = LEASE_S - 1.0
"""A turn takes milliseconds. Below the lease, so that what this process runs is not given away meanwhile."""

LAST_REPLY_S: Final = 1.0
"""How long a channel that closes waits for the reply that is under way."""

SUSPECT_PAUSE_S: Final = 1.0
"""A suspect waits so long in Redis while another one runs here."""


class Fetching(Announcing, Binding, Base):
    """What makes a kombu Redis channel lease its messages; mixed into the plain and the Sentinel channel."""

    # kombu's own, typed: the connection while a reply is due, and since when.
    _in_poll: Any
    _brpop_sent_at: Any
    global_keyprefix: str

    def __init__(self, *args: Any, **options: Any) -> None:
        """Open the channel; the fetch connection is opened when something is consumed."""
        super().__init__(*args, **options)
        # What is held lies under the prefix, too.
        self.holder: Holder = holders.of(
            f"{self.connection.client.as_uri(include_password=True)} {self.global_keyprefix}{self.unacked_key}"
        )
        self.handlers["BRPOP"] = self._on_readable
        self._wait = Wait()
        self._state = "idle"
        self._since = 0.0
        self.answered_at = time.monotonic()
        """When the server last answered a turn or a wait, in monotonic time."""
        self._empty = False
        self._refused_until = 0.0
        self._due_at = float("inf")
        self._gathering = Gathering(self.holder)
        self._names: list[str] = []
        self._paused: set[str] = set()
        self._sent: list[Commit] = []
        self._sent_fence = ""
        self._undelivered = Arrivals()
        self._shared: Any = None
        self._shared_of: Any = None
        self.taker: Callable[[dict[str, Any]], bool] | None = None
        """Is offered each fetched message before kombu; what it takes, it ends at the holder, and here in `express`."""
        self.express: dict[str, Any] = {}
        self._turn_sha: str | None = None

    # --- what the poller asks

    def tick(self) -> None:
        """Send the next turn if the connection is free for it; else let the next end of a call wake the loop."""
        while self._undelivered and self.qos.can_consume():
            self._deliver(*self._undelivered.pop())
        now = time.monotonic()
        waited_s = now - self._since
        if self._state in {"turn", "arming"}:
            if waited_s <= REPLY_BOUND_S:
                return
            self._give_up(waited_s)
        if now < self._refused_until:
            return
        if self._state == "waiting" and (now >= self._due_at or waited_s > RECHECK_S):
            self._settle(empty=False)
        if self._state == "waiting" and not self.holder.sleeps():
            self._settle(empty=False)
        if self._state != "idle" or self._gathering.holds_back():
            return
        if self._want() > 0 or not self.holder.sleeps():
            self.connection.cycle.register_fetch(self)

    def commit_idle(self) -> None:
        """Commit what ended here since the last queue was left: no turn comes any more.

        A reply that is under way is read first; what it brings goes back.
        """
        if self._state == "turn" and time.monotonic() - self._since > REPLY_BOUND_S:
            self._give_up(time.monotonic() - self._since)
        if self._state != "turn" and time.monotonic() >= self._refused_until and not self.holder.sleeps():
            self._refused_until = time.monotonic() + RECHECK_S if not self._commit() else 0.0

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send a turn, or arm the wait after an empty one; kombu calls it with the connection registered."""
        del timeout
        self._names = list(self._queue_cycle.consume(len(self.active_queues)))
        if not self._names:
            return
        connection = self.client.connection
        self._in_poll = connection
        self._since = self._brpop_sent_at = time.monotonic()
        if self._empty and not self.holder.has_commits:
            self._state = "arming"
            self._wait.arm(connection, self._lists(but=self._paused), keys.PAUSED)
        else:
            self._send_turn(connection)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply that is under way; kombu calls it when it closes the channel, which has settled by then."""
        del options
        return True

    def _on_readable(self) -> bool:
        """Read what came.

        Raises:
            Empty: if it brought no message; kombu's blocking callers count a return as one.
        """
        read = {"turn": self._read_turn, "arming": self._read_armed}.get(self._state, self._read_push)
        try:
            delivered = read()
        except self.connection_errors:
            self._drop_connection()
            raise
        if not delivered:
            raise Empty
        return True

    def _give_up(self, waited_s: float) -> None:
        """Drop a connection that does not answer: one that is half open never would.

        What the lost turn fetched is restored when its leases lapse; what it committed is committed again.
        """
        metrics.BROKER_FAILURES.labels("turn").inc()
        log.warning("no reply from the broker for %.1f s: connecting anew", waited_s)
        self._drop_connection()

    def _drop_connection(self) -> None:
        self._put_back()
        self._settle(empty=False)
        self.client.connection.disconnect()

    def _put_back(self) -> None:
        """Keep what was sent without success for the next turn."""
        self.holder.put_back(self._sent)
        self._sent = []

    def _settle(self, *, empty: bool) -> None:
        """Go to idle: the connection may be used for the next command."""
        self._state, self._in_poll, self._brpop_sent_at = "idle", None, None
        self._empty = empty
        self._flush_brpop_reauth()

    # --- turns

    def _lists(self, but: Iterable[str] = ()) -> list[str]:
        """Name the lists, priority by priority."""
        names = [each for each in self._names if each not in but]
        return [
            self.global_keyprefix + self._q_for_pri(queue, priority)
            for priority in self.priority_steps
            for queue in names
        ]

    def _held_keys(self) -> list[str]:
        return held_keys(self.global_keyprefix, self.unacked_key, self.unacked_index_key)

    def _want(self) -> int:
        if self._closing or self.holder.is_leaving or not self.qos.can_consume():
            return 0
        estimate = self.qos.can_consume_max_estimate()
        room = MOST_PERTURN if estimate is None else min(estimate, MOST_PERTURN)
        return min(room, self.holder.room())

    def _send_turn(self, connection: Any) -> None:
        # At the first turn, too: a worker that is never idle is known by it to the health check.
        self._wait.track(connection)
        self._sent, self._sent_fence = self.holder.take_commits(), self.holder.fence()
        names = [*self._held_keys(), *SHARED_KEYS, *self._lists()]
        arguments = turn_arguments(self._want(), self._names, self._sent_fence, self._sent)
        script = ("EVAL", TURN) if self._turn_sha is None else ("EVALSHA", self._turn_sha)
        self._state = "turn"
        self._gathering.sent()
        try:
            connection.send_command(*script, len(names), *names, *arguments)
        except self.connection_errors:
            self._put_back()
            self._settle(empty=False)
            raise

    def _read_turn(self) -> int:
        """Read the reply of a turn and deliver what may be now; give how many messages that was."""
        self._take_reply()
        delivered = 0
        while self._undelivered:
            self._deliver(*self._undelivered.pop())
            delivered += 1
        self._gathering.answered(get_event_loop(), _nothing)
        return delivered

    def _take_reply(self) -> None:
        """Read the reply of a turn and enter what it brought."""
        try:
            refused, next_due_ms, paused, now, *found = self.client.connection.read_response()
        except NoScriptError:
            self._turn_sha = None
            self._put_back()
            self._settle(empty=False)
            return
        except ResponseError as failure:
            # A full or read-only server: nothing was done. Not again for a second.
            metrics.BROKER_FAILURES.labels("turn").inc()
            log.warning("the server refused a turn: %s", failure)
            self._refused_until = time.monotonic() + RECHECK_S
            self._put_back()
            self._settle(empty=True)
            return
        # EVAL has put it into the server's cache.
        self._turn_sha, self.answered_at = TURN_SHA, time.monotonic()
        metrics.TURNS.inc()
        metrics.FETCHED.inc(len(found) // 5)
        self.holder.arrived(self._sent)
        self._undelivered.release()
        self._sent = []
        self._settle(empty=not found)
        self._paused = {each.decode() for each in paused}
        self._await_due(next_due_ms)
        warn_of(refused)
        if found:
            self._wait.found()
        for at in range(0, len(found), 5):
            self._take(float(now), *found[at : at + 5])
        if not self.holder.has_commits:
            self._undelivered.release()

    def _take(self, now: float, queue_number: int, item: bytes, tag: bytes, lost: int, cancelled: int) -> None:
        """Parse a fetched message and enter its lease; `now` is the server's time."""
        queue, name = self._names[queue_number], tag.decode()
        try:  # as plain JSON: kombu's own reader builds what a message asks for, and raises what that raises
            message = jsontext.loads(item)
            flaw = flaw_of(message)
        except Exception:  # noqa: BLE001 - whatever is wrong with one message, the worker goes on
            message, flaw = None, "it is no JSON"
        if flaw is not None:
            log.error("a message on queue %s was put among the dead letters: %s", queue, flaw)
            self.holder.fetched(name, self._sent_fence, 0.0, {})
            self.holder.bury(name, f"no message: {flaw}", "", kind="unreadable")
            self.holder.end(name)
            return
        if not self.holder.fetched(name, self._sent_fence, renewed_until(message, self.holder.deadline_s), message):
            return
        if lost:
            metrics.DUPLICATES.labels("redelivered").inc()
        # The script and kombu may read a message made to confuse differently; it is held under this tag.
        message["properties"]["delivery_tag"] = name
        if self._waits_in_redis(name, message["headers"], now, lost):
            self.holder.end(name)
            return
        # Since when the turn was sent, what it says of cancellation may be out of date: not since when it was read.
        message["properties"].update(gaia_lost=lost, gaia_cancelled=bool(cancelled), gaia_at=self._since)
        self._undelivered.add(queue, message, is_suspect=lost >= self.holder.suspect_from)

    def _waits_in_redis(self, name: str, headers: dict[str, Any], now: float, lost: int) -> bool:
        """Say whether a message must wait, and for what; then it does so in Redis, not in this worker's memory."""
        due, paused = due_at(headers), paused_in(headers, self._paused)
        if paused is not None:
            return self.holder.put_aside(name, paused)
        if due is not None and due > now:
            # A stock producer's `countdown` or `eta`, by the clock that brings it back.
            return self.holder.postpone(name, due)
        # One whose time is over may go on: it is refused before it runs, and its caller hears of it.
        deadline = wire.times(headers.get(wire.HEADER))[1] if lost else None
        if deadline is not None and deadline <= now:
            return False
        return not self.holder.admit(name, lost) and self.holder.postpone(name, now + SUSPECT_PAUSE_S)

    def _deliver(self, queue: str, message: dict[str, Any]) -> None:
        self._queue_cycle.rotate(queue)
        if self.taker is not None and self.taker(message):
            return
        tag = message["properties"]["delivery_tag"]
        self.connection._deliver(message, queue)  # noqa: SLF001 - the transport's own door for its channels
        if tag not in self.qos._delivered and self.holder.holds(tag):  # noqa: SLF001 - as above
            self.holder.end(tag)  # a consumer without acknowledgements took it

    def _await_due(self, next_due_ms: int) -> None:
        """Look again when the next delayed message is due, if that is before the wait is looked after anyway."""
        loop = get_event_loop()
        if not 0 <= next_due_ms < RECHECK_S * 1000:
            self._due_at = float("inf")
            return
        due_at, now = time.monotonic() + next_due_ms / 1000, time.monotonic()
        is_planned = now < self._due_at <= due_at
        if not is_planned:
            self._due_at = due_at
            if loop is not None:
                loop.call_later(next_due_ms / 1000, _nothing)

    # --- waiting

    def _read_armed(self) -> int:
        connection = self.client.connection
        try:
            is_armed = self._wait.read_armed(connection, is_any_paused=bool(self._paused))
        except ResponseError as failure:
            # A server that a long script keeps busy, or a list that is none. Celery's loop would end by the error.
            log.warning("the server refused a wait: %s", failure)
            self._refused_until = time.monotonic() + RECHECK_S
            is_armed = False
        if not is_armed:
            self._settle(empty=False)
            return 0
        self._state, self._brpop_sent_at, self.answered_at = "waiting", None, time.monotonic()
        return self._read_push() if self._wait.has_push(connection) else 0

    def _read_push(self) -> int:
        self._wait.read_push(self.client.connection)
        self._settle(empty=False)
        return 0

    # --- connections

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Give a client of the pool; one serves all commands, since making one costs as much as a round trip."""
        if client is None:
            if self._shared_of is not self.pool:
                self._shared, self._shared_of = self._create_client(), self.pool
            client = self._shared
        yield client

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> Any:
        """Consume a queue; from the first on, the process's leases are kept."""
        found = super().basic_consume(queue, *args, **options)
        if queue not in self._fanout_queues:
            if self.holder.keeper is None:
                self.holder.keep(Keeper(self._get_pool(), self._held_keys(), self.global_keyprefix + keys.SWEEP))
            loop = get_event_loop()
            if loop is not None:
                self.holder.wake = lambda: loop.call_soon(_nothing)
        return found

    # --- the end

    def settle(self) -> None:
        """Take the reply that is under way, and give back what was not delivered; waits a second at most."""
        try:
            if self._state == "turn" and self._is_readable():
                self._take_reply()
        except (*self.connection_errors, ResponseError):
            log.warning("the broker is away or refuses: what was fetched last comes back when its leases lapse")
        finally:
            self.holder.give_back(self._undelivered.clear(), "next")
            self._put_back()
            self._state = "idle"

    def _is_readable(self) -> bool:
        sock = self.client.connection._sock  # noqa: SLF001 - redis-py has no way that leaves the socket alone
        return sock is not None and bool(select.select([sock], [], [], LAST_REPLY_S)[0])

    def close(self) -> None:
        """Close the connections. What ended is committed, and what is held is kept, by the holder."""
        if not self.closed and "client" in self.__dict__:
            self._closing = True
            self.settle()
            self._commit()
        super().close()

    def _commit(self) -> bool:
        """Send the commits that wait for a turn; False if the broker is away: then over the next connection."""
        keeper = self.holder.keeper
        while keeper is not None and (commits := self.holder.take_commits()):
            try:
                refused = keeper.commit(commits, self.holder.fence())
            except (*self.connection_errors, ResponseError):
                self.holder.put_back(commits)
                return False
            self.holder.arrived(commits)
            warn_of(refused)
        return True


class Channel(Fetching, kombu_redis.Channel):
    """A channel whose messages are leased."""

    QoS = QoS


class SentinelChannel(Fetching, kombu_redis.SentinelChannel):
    """The same behind Redis Sentinel."""

    QoS = QoS


def _nothing() -> None:
    """Wake the loop: its next tick looks by itself."""

"""A kombu channel that fetches by turns: one script call commits what ended and fetches what may start.

The fetch connection is always in one of these states, owned by the loop's thread:

    idle     nothing is sent; the next tick sends a turn if there is room or something to commit
    turn     the script was sent; its reply holds messages, or none
    arming   after an empty turn: the server was asked to remember the lists and to say if one has content
    waiting  armed: the server pushes one word at the first write to any list

The wait takes nothing off a list, so nothing can be lost in it. A server that refuses tracking is waited on by moving
the last message of a list onto itself, which blocks and changes nothing.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from redis.exceptions import NoScriptError, ResponseError

from gaia.store import keys
from tasks.broker.holder import Commit, Holder, holder
from tasks.broker.qos import QoS
from tasks.broker.reading import due_at, flaw_of, paused_in, renewed_until
from tasks.broker.scripts import SCRIPTS, SHARED_KEYS, TURN, TURN_SHA

log = logging.getLogger(__name__)

LEASE_S: Final = 6.0
"""A message whose holder did not renew for so long is given to another worker."""

MOST_PERTURN: Final = 256
"""Bounds the time for which one script call keeps others waiting, and Lua's unpack."""

RECHECK_S: Final = 1.0
"""An armed wait is looked after so often; a lost push delays a message by no more."""

FALLBACK_WAIT_S: Final = 0.05

REPLY_BOUND_S: Final = 5.0
"""A turn takes milliseconds. Below the lease, so that what this process runs is not given away meanwhile."""

LOST_KEPT_S: Final = 24 * 3600


class Channel(kombu_redis.Channel):
    """A channel whose messages are leased."""

    QoS = QoS
    # kombu's own, typed: the connection while a reply is due, and since when.
    _in_poll: Any
    _brpop_sent_at: Any
    global_keyprefix: str

    def __init__(self, *args: Any, **options: Any) -> None:
        """Open the channel; the fetch connection is opened when something is consumed."""
        super().__init__(*args, **options)
        self.holder: Holder = holder(self.connection.client.as_uri(include_password=True))
        self.handlers["BRPOP"] = self._on_readable
        self._state = "idle"
        self._since = 0.0
        self._empty = False
        self._pushed = False
        self._tracking: Any = None
        self._trackable = True
        self._fruitless = False
        self._refused_until = 0.0
        self._names: list[str] = []
        self._paused: set[str] = set()
        self._sent: list[Commit] = []
        self._sent_fence = ""
        self._undelivered: deque[tuple[str, dict[str, Any]]] = deque()
        self._scripts: dict[str, Any] = {}
        self._shared: Any = None
        self._shared_of: Any = None
        self.taker: Callable[[dict[str, Any]], bool] | None = None
        """Is offered each fetched message before kombu; what it takes, it ends at the holder, and here in `express`."""
        self.express: set[str] = set()
        self._turn_sha: str | None = None

    # --- what the poller asks

    @property
    def looks_soon(self) -> bool:
        """Say whether the loop will look for commits without being woken: a reply is due within milliseconds."""
        return self._state == "turn"

    def tick(self) -> None:
        """Send the next turn if the connection is free for it."""
        while self._undelivered and self.qos.can_consume():
            self._deliver(*self._undelivered.popleft())
        waited_s = time.monotonic() - self._since
        if self._state in {"turn", "arming"} and waited_s > REPLY_BOUND_S:
            self._give_up(waited_s)
        overdue = self._state == "waiting" and waited_s > RECHECK_S
        if self._state == "waiting" and (self.holder.has_commits or overdue):
            self._settle()
            self._empty = False
        if time.monotonic() < self._refused_until:
            return
        if self._state == "idle" and (self.holder.has_commits or self._want() > 0):
            self.connection.cycle.register_fetch(self)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send a turn, or arm the wait after an empty one; kombu calls it with the connection registered."""
        del timeout
        if not self._queue_names():
            return
        connection = self.client.connection
        self._in_poll = connection
        self._since = self._brpop_sent_at = time.monotonic()
        if self._empty and not self.holder.has_commits:
            self._arm(connection)
        else:
            self._send_turn(connection)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply that is under way; kombu calls it when it closes the channel."""
        del options
        if self._state in {"turn", "arming"}:
            self._on_readable()
        return True

    def _on_readable(self) -> bool:
        try:
            {"turn": self._read_turn, "arming": self._read_armed}.get(self._state, self._read_push)()
        except self.connection_errors:
            self.holder.put_back(self._sent)
            self._sent = []
            self._settle()
            self._empty = False
            self.client.connection.disconnect()
            raise
        return True

    def _give_up(self, waited_s: float) -> None:
        """Drop a connection that does not answer: one that is half open never would.

        What the lost turn fetched is restored when its leases lapse; what it committed is committed again.
        """
        log.warning("no reply from the broker for %.1f s: connecting anew", waited_s)
        self.holder.put_back(self._sent)
        self._sent = []
        self._settle()
        self._empty = False
        self.client.connection.disconnect()

    def _settle(self) -> None:
        """Go to idle: the connection may be used for the next command."""
        self._state, self._in_poll, self._brpop_sent_at = "idle", None, None
        self._flush_brpop_reauth()

    # --- turns

    def _queue_names(self) -> list[str]:
        self._names = list(self._queue_cycle.consume(len(self.active_queues)))
        return self._names

    def _lists(self) -> list[str]:
        """Name the lists, priority by priority."""
        return [
            self.global_keyprefix + self._q_for_pri(queue, priority)
            for priority in self.priority_steps
            for queue in self._names
        ]

    def _own(self, name: str) -> str:
        return self.global_keyprefix + name

    def _held_keys(self) -> list[str]:
        return [self._own(self.unacked_key), self._own(self.unacked_index_key), self._own(keys.HELD)]

    def _want(self) -> int:
        if self._closing or not self.qos.can_consume():
            return 0
        estimate = self.qos.can_consume_max_estimate()
        room = MOST_PERTURN if estimate is None else min(estimate, MOST_PERTURN)
        return min(room, self.holder.room())

    def _send_turn(self, connection: Any) -> None:
        # At the first turn, too: a worker that is never idle is known by it to the health check.
        self._track(connection)
        self._sent, self._sent_fence = self.holder.take_commits(), self.holder.fence()
        names = [*self._held_keys(), *SHARED_KEYS, *self._lists()]
        arguments: list[Any] = [self._want(), len(self._names), self._sent_fence, len(self._sent)]
        for each in self._sent:
            arguments += each.arguments()
        script = ("EVAL", TURN) if self._turn_sha is None else ("EVALSHA", self._turn_sha)
        self._state = "turn"
        try:
            connection.send_command(*script, len(names), *names, *arguments, *self._names)
        except self.connection_errors:
            self.holder.put_back(self._sent)
            self._sent = []
            self._settle()
            raise

    def _read_turn(self) -> None:
        try:
            reply = self.client.connection.read_response()
        except NoScriptError:
            self._turn_sha = None
            self.holder.put_back(self._sent)
            self._settle()
            return
        except ResponseError as failure:
            # A full or read-only server: nothing was done. Not again before the next look, a second later.
            log.warning("the server refused a turn: %s", failure)
            self._refused_until = time.monotonic() + RECHECK_S
            self.holder.put_back(self._sent)
            self._settle()
            self._empty = True
            return
        if self._turn_sha is None:
            # EVAL has put it into the server's cache.
            self._turn_sha = TURN_SHA
        self._sent = []
        self._settle()
        refused, next_due_ms, paused, *found = reply
        self._paused = {each.decode() for each in paused}
        self._await_due(next_due_ms)
        if refused:
            log.warning("%d results were refused: their leases had lapsed, others run those calls", refused)
        self._empty = not found
        self._fruitless = self._fruitless and not found
        for at in range(0, len(found), 5):
            self._take(*found[at : at + 5])
        while self._undelivered:
            self._deliver(*self._undelivered.popleft())

    def _take(self, queue_number: int, item: bytes, tag: bytes, lost: int, cancelled: int) -> None:
        """Parse a fetched message and enter its lease; garbage goes to the dead letters."""
        queue, name = self._names[queue_number], tag.decode()
        try:
            # Plain JSON: kombu's own reader builds what a message asks for, and raises what that raises.
            message = json.loads(item.decode("utf-8", "surrogatepass"))
            flaw = flaw_of(message)
        except Exception:  # noqa: BLE001 - whatever is wrong with one message, the worker goes on
            message, flaw = None, "it is no JSON"
        if flaw is not None:
            log.error("a message on queue %s was put among the dead letters: %s", queue, flaw)
            self.holder.fetched(name, self._sent_fence, 0.0, {})
            self.holder.bury(name, f"no message: {flaw}", "")
            self.holder.end(name)
            return
        self.holder.fetched(name, self._sent_fence, renewed_until(message), message)
        # The script and kombu may read a message made to confuse differently; it is held under this tag.
        message["properties"]["delivery_tag"] = name
        due, paused = due_at(message["headers"]), paused_in(message["headers"], self._paused)
        if paused is not None:
            self.holder.put_aside(name, paused)
            self.holder.end(name)
        elif due is not None and due > time.time():
            # A stock producer's `countdown` or `eta`: it waits in Redis, not in this worker's memory.
            self.holder.postpone(name, due)
            self.holder.end(name)
        else:
            message["properties"].update(gaia_lost=lost, gaia_cancelled=bool(cancelled), gaia_at=time.monotonic())
            self._undelivered.append((queue, message))

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
        if 0 <= next_due_ms < RECHECK_S * 1000 and loop is not None:
            loop.call_later(next_due_ms / 1000, self._recheck)

    def _recheck(self) -> None:
        if self._state == "waiting":
            self._since = 0.0

    # --- waiting

    def _arm(self, connection: Any) -> None:
        self._pushed = False
        lists = self._lists()
        if not self._track(connection):
            self._state = "arming"
            connection.send_command("BLMOVE", lists[0], lists[0], "RIGHT", "RIGHT", FALLBACK_WAIT_S)
            return
        self._state = "arming"
        connection.send_packed_command(
            connection.pack_commands([("CLIENT", "CACHING", "YES"), ("EXISTS", *lists)]), check_health=False
        )

    def _track(self, connection: Any) -> bool:
        """Switch tracking on, once a socket; False if the server refuses it."""
        if self._trackable and self._tracking is not connection._sock:  # noqa: SLF001 - a socket is a session
            try:
                connection.send_command("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")
                connection.read_response()
                connection._parser.set_invalidation_push_handler(self._on_push)  # noqa: SLF001 - no public way
                self._tracking = connection._sock  # noqa: SLF001 - as above
            except ResponseError:
                log.info("the server refuses client tracking; waiting by BLMOVE")
                self._trackable = False
        return self._trackable

    def _on_push(self, _: Any) -> str:
        self._pushed = True
        return "pushed"

    def _read_armed(self) -> None:
        connection = self.client.connection
        if not self._trackable:
            connection.read_response()
            self._empty = False
            self._settle()
            return
        connection.read_response()
        present = connection.read_response()
        # Content that a turn does not take, of a paused queue for one, is looked at again once and then waited on.
        if self._pushed or (present and not self._fruitless):
            self._fruitless = bool(present)
            self._empty = False
            self._settle()
            return
        self._state, self._brpop_sent_at = "waiting", None
        # The push may already lie in the parser's buffer, where the loop's poll cannot see it.
        if connection._parser._reader.has_data():  # noqa: SLF001 - hiredis is a declared dependency
            self._read_push()

    def _read_push(self) -> None:
        self.client.connection.read_response(push_request=True)
        self._empty = False
        self._settle()

    # --- connections

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Give a client of the pool; one serves all commands, since making one costs as much as a round trip."""
        if client is None:
            if self._shared_of is not self.pool:
                self._shared, self._shared_of = self._create_client(), self.pool
            client = self._shared
        yield client

    # --- leases

    def _script(self, name: str) -> Any:
        if name not in self._scripts:
            self._scripts[name] = self._plain().register_script(SCRIPTS[name])
        return self._scripts[name]

    def _plain(self) -> "redis.Redis":
        """Give a client that adds no prefix: kombu's would prefix the first key of a script only."""
        if not hasattr(self, "_plain_client"):
            self._plain_client = redis.Redis(connection_pool=self.pool)
        return self._plain_client

    def give_back(self, tags: Iterable[str], where: str) -> None:
        """Give held messages back to their lists, to be fetched "next", or "last"."""
        dropped = self.holder.drop(tags)
        if dropped:
            self._script("give_back")(
                keys=self._held_keys(), args=[where, *(part for each in dropped for part in each)]
            )

    def sweep(self) -> None:
        """Restore the messages of dead holders."""
        restored = self._script("restore")(
            keys=[*self._held_keys(), self._own(keys.SWEEP)], args=[LEASE_S, 1000, LOST_KEPT_S]
        )
        if restored:
            log.warning("%d messages of workers that died were given back to their queues", restored)

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> Any:
        """Consume a queue; leases are renewed over this connection from now on."""
        found = super().basic_consume(queue, *args, **options)
        if queue not in self._fanout_queues:
            index, held = self._own(self.unacked_index_key), self._own(keys.HELD)
            renew = self._script("renew")

            def through(leases: list[tuple[str, str]]) -> list[str]:
                arguments = [part for each in leases for part in each]
                return [each.decode() for each in renew(keys=[index, held], args=arguments)]

            self.holder.renew_through(through, LEASE_S / 3)
        return found

    def close(self) -> None:
        """Commit what has ended; if the worker ends, give back what has not."""
        if not self.closed and self.active_queues:
            self._closing = True
            try:
                self._leave()
            except (*self.connection_errors, ResponseError):
                log.warning("the broker is away or refuses: what was held comes back when its leases lapse")
        super().close()

    def _leave(self) -> None:
        if self._state in {"turn", "arming"}:
            self._on_readable()
        while self.holder.has_commits:
            commits = self.holder.take_commits()
            names = [*self._held_keys(), *SHARED_KEYS]
            arguments: list[Any] = [0, 1, self.holder.fence(), len(commits)]
            for each in commits:
                arguments += each.arguments()
            try:
                self._script("turn")(keys=names, args=arguments)
            except (*self.connection_errors, ResponseError):
                self.holder.put_back(commits)
                raise
        undelivered = [message["properties"]["delivery_tag"] for _, message in self._undelivered]
        self._undelivered.clear()
        self.give_back(undelivered, "next")
        if self.holder.stopping:
            self.give_back(self.holder.held(), "next")

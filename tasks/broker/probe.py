"""Finds out at the start whether kombu and redis-py still behave as the transport needs; it leans on their inside.

One message is fetched, delivered, acknowledged and committed, and one wait is armed and woken, through the very classes
that the worker uses. The server is a thread that answers from a table, on the other end of a socket pair: no network.
"""

import json
import socket
import threading
from contextlib import closing, suppress
from queue import Empty
from typing import Any, Final

import kombu
import redis
from kombu.connection import Connection
from redis.exceptions import RedisError

from gaia.store import keys
from tasks.broker.channel import Channel
from tasks.broker.holder import Holder
from tasks.broker.transport import Transport

BOUND_S: Final = 5.0
"""For each wait; all of them together take milliseconds."""

QUEUE: Final = "probe"
TAG: Final = "a-tag"

_MESSAGE: Final = json.dumps(
    {
        "body": "W10=",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "probe.x", "id": TAG},
        "properties": {
            "correlation_id": TAG,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "body_encoding": "base64",
            "delivery_tag": TAG,
        },
    }
).encode()

_REPLY: Final = b"*%d\r\n:0\r\n:-1\r\n*0\r\n$3\r\n1.0\r\n"

_PUSH: Final = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nprobe\r\n"


class Unfit(Exception):  # noqa: N818 - it says what they are
    """The installed kombu or redis-py cannot carry the transport."""


class _Quiet(Holder):
    """A holder without a thread: the probe is over before any lease is due."""

    def keep(self, *_: Any, **__: Any) -> None:
        """Keep nothing."""


class _Server(threading.Thread):
    """The other end of one connection. Keeps what it was asked, in words."""

    def __init__(self) -> None:
        super().__init__(name="gaia-probe", daemon=True)
        self.near, self._far = socket.socketpair()
        self.asked: list[list[bytes]] = []

    def run(self) -> None:
        """Answer until the near end is closed."""
        with self._far, self._far.makefile("rb") as stream:
            while head := stream.readline():
                words = [stream.read(int(stream.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
                reply = self._answer(words)
                self.asked.append(words)
                self._far.sendall(reply)

    def push(self) -> None:
        """Say that a list has changed."""
        self._far.sendall(_PUSH)

    def _answer(self, words: list[bytes]) -> bytes:
        if words[0] in {b"EVAL", b"EVALSHA"}:
            first = not any(each[0] in {b"EVAL", b"EVALSHA"} for each in self.asked)
            found = b":0\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:0\r\n:0\r\n" % (len(_MESSAGE), _MESSAGE, len(TAG), TAG.encode())
            return _REPLY % 9 + found if first else _REPLY % 4
        known = {b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n", b"PING": b"+PONG\r\n", b"EXISTS": b":0\r\n"}
        return known.get(words[0], b"+OK\r\n")


class _Connection(redis.Connection):
    """redis-py's connection to a server of its own."""

    def _connect(self) -> socket.socket:
        server = _Server()
        server.start()
        server.near.settimeout(BOUND_S)
        self.gaia_server = server
        return server.near


class _Channel(Channel):
    """The worker's channel over such connections."""

    connection_class = _Connection

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.holder = _Quiet()


class _Transport(Transport):
    Channel = _Channel


def require_fit() -> None:
    """Exercise the inside of kombu and redis-py.

    Raises:
        Unfit: with the step that failed.
    """
    step = ["a channel is opened"]
    versions = f"kombu {kombu.__version__} and redis-py {redis.__version__}"
    try:
        with closing(Connection(transport=_Transport)) as connection:
            _exercise(connection, step)
    except (AssertionError, AttributeError, TypeError, ValueError, LookupError, RedisError, OSError) as failure:
        why = f": {failure}" if str(failure) else ""
        raise Unfit(
            f"{versions} do not fit Gaia's transport; failed: {step[0]} ({type(failure).__name__}{why}). "
            "Install the versions of requirements.lock."
        ) from None


def _exercise(connection: Any, step: list[str]) -> None:
    received: list[Any] = []
    channel = connection.channel()
    cycle = connection.transport.cycle

    def turn(what: str, *, send: bool = True) -> None:
        """Let the loop send what is due, then read one reply."""
        step[0] = what
        if send:
            cycle.on_poll_start()
        events: Any = cycle.poller.poll(BOUND_S) or ()
        _hold([each for each, _ in events] == [channel.client.connection.gaia_server.near.fileno()], "it is polled")
        with suppress(Empty):  # what brings no message
            connection.transport.on_readable(events[0][0])

    lists = [channel._q_for_pri(QUEUE, each) for each in channel.priority_steps]  # noqa: SLF001 - the probe's purpose
    _hold(lists == [keys.queue_list(QUEUE, each) for each in keys.PRIORITY_STEPS], "the lists have their names")
    channel.basic_qos(0, 1, False)  # noqa: FBT003 - kombu's signature
    channel.basic_consume(QUEUE, False, received.append, "probe")  # noqa: FBT003 - kombu's signature
    turn("a message is fetched and delivered")
    _hold([each.delivery_tag for each in received] == [TAG], "it reaches the consumer")
    _hold(not channel.qos.can_consume() and channel.holder.holds(TAG), "it counts as held")
    step[0] = "a message is acknowledged"
    received[0].ack()
    _hold(channel.qos.can_consume() and channel.holder.has_commits, "it waits for its commit")
    turn("an acknowledgement is committed")
    _hold(TAG.encode() in b" ".join(channel.client.connection.gaia_server.asked[-1]), "it was sent")
    turn("a wait is armed")
    _hold(channel._state == "waiting", f"the state is {channel._state}")  # noqa: SLF001 - as above
    channel.client.connection.gaia_server.push()
    turn("a wait is woken", send=False)
    _hold(channel._state == "idle", f"the state is {channel._state}")  # noqa: SLF001 - as above
    step[0] = "a channel is closed"
    channel.close()
    _hold(channel.closed, "it is closed")


def _hold(fact: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion, which -O would drop
    if not fact:
        raise AssertionError(what)

"""Consumers and producers over our transport, in this process."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from gaia.store import keys
from tasks.broker import holders as all_holders
from tasks.broker.holder import Holder
from tests.support.waiting import until

TRANSPORT = "tasks.broker.transport:Transport"


def text(tag: str | None = None, queue: str = "q", **over: object) -> bytes:
    """Give a message as kombu writes it."""
    tag = tag or os.urandom(8).hex()
    message: dict[str, object] = {
        "body": "W10=",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "q.x", "id": tag},
        "properties": {
            "correlation_id": tag,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }
    return json.dumps(message | over).encode()


class Broker:
    """One worker's connection: what it received, and whatever a test wants to know of Redis."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.connection = Connection(url, transport=TRANSPORT, transport_options=options)
        self.received: deque[Message] = deque()

    def consume(self, *queues: str, prefetch: int = 0, no_ack: bool = False) -> "Broker":
        self.channel: Any = self.connection.channel()
        self.channel.basic_qos(0, prefetch, False)
        self.consumer = Consumer(
            self.channel,
            [Queue(each, no_declare=True) for each in queues or ("q",)],
            on_message=self.received.append,
            no_ack=no_ack,
        )
        self.consumer.consume()
        return self

    def pump(self, condition: Callable[[], Any], what: str = "the condition", timeout_s: float = 20) -> Any:
        """Run the loop until something is true."""

        def turn() -> Any:
            with suppress(TimeoutError):
                self.connection.drain_events(timeout=0.05)
            return condition()

        return until(turn, timeout_s, what=what)

    def idle(self, seconds: float = 0.5) -> None:
        """Run the loop for a while."""
        ends_at = time.monotonic() + seconds
        self.pump(lambda: time.monotonic() > ends_at)

    def receive(self, count: int) -> list[str]:
        self.pump(lambda: len(self.received) >= count, f"{count} messages")
        return [str(each.delivery_tag) for each in self.received]

    def wait_armed(self) -> None:
        self.pump(lambda: self.channel._state == "waiting", "the wait")

    @property
    def holder(self) -> Holder:
        found: Holder = self.channel.holder
        return found

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def holders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process's holders of its own; their threads end with the test."""
    monkeypatch.setattr(all_holders, "_holders", {})
    monkeypatch.setattr(all_holders, "_process", all_holders._Process())
    yield
    all_holders.close()


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url, socket_timeout=10) as found:
        yield found


@pytest.fixture
def broker(fresh_url: str, holders: None) -> Iterator[Broker]:
    found = Broker(fresh_url)
    yield found
    found.close()


def held(client: "redis.Redis", prefix: str = "") -> tuple[int, int, int]:
    """Give the sizes of the three records of what is held."""
    return (
        client.hlen(f"{prefix}unacked"),
        client.zcard(f"{prefix}unacked_index"),
        client.hlen(prefix + keys.HELD),
    )

"""The thread that hears Celery's events, straight from the channels that kombu's fanout publishes them on.

It connects anew after any failure, and if a subscription falls silent; events of that time are missed: they are news.
"""

import json
import threading
from base64 import b64decode
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import redis

from gaia.store.connection import connect
from tasks.delivery import news
from tasks.monitor.calls import Calls
from tasks.monitor.series import Book
from tasks.monitor.thread import Thread
from tasks.scope import Clock

EXCHANGE: Final = "celeryev"

LAG_SPAN_S: Final = 30.0
"""So long, and up to twice as long, the latest event is told of: every scrape sees one worker's clock among many."""


class Listener(Thread):
    """Hears events until it is closed."""

    def __init__(self, url: str, calls: Calls, book: Book, clock: Clock | None = None) -> None:
        """Prepare to hear over the Redis at `url`."""
        self._clock = clock or Clock()
        super().__init__("gaia-events", leave_s=news.SILENCE_S)
        self._client = connect(url, reply_timeout_s=news.SILENCE_S)
        number = redis.connection.parse_url(url).get("db", 0)  # type: ignore[no-untyped-call]  # redis-py
        self._pattern = f"/{number}.{EXCHANGE}*"
        self._calls, self._book = calls, book
        self._late = _Worst(self._clock)

    def close(self) -> None:
        """End; within about a second."""
        super().close()
        self._client.close()

    def _live(self) -> None:
        news.persist(self._follow, self._closed, "events")

    def _follow(self) -> None:
        with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # redis-py
            pubsub.psubscribe(self._pattern)
            for message in news.heard(pubsub, self._closed):
                if message["type"] == "pmessage":
                    self._hear(message["data"])

    def _hear(self, data: bytes) -> None:
        try:
            events = _events(data)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            with self._book.lock:
                self._calls.odd()
            return
        with self._book.lock:
            for each in events:
                self._calls.hear(each)
        with suppress(TypeError, KeyError, ValueError, AttributeError, IndexError, ArithmeticError):
            self._late.add(self._clock.wall() - float(events[-1]["timestamp"]))

    def lag_s(self) -> float:
        """Give how late the latest of the last events came: 0 if none came for long."""
        return self._late.worst()


class _Worst:
    """The largest of the values of the last half to whole minute. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._monotonic = clock.monotonic
        self._began_at = self._monotonic()
        self._before = self._now = 0.0

    def add(self, value: float) -> None:
        with self._lock:
            self._turn()
            self._now = max(self._now, value)  # which NaN as the second leaves as it is

    def worst(self) -> float:
        with self._lock:
            self._turn()
            return max(self._before, self._now)

    def _turn(self) -> None:
        passed_s = self._monotonic() - self._began_at
        if passed_s > LAG_SPAN_S:
            self._before, self._now = (self._now if passed_s <= 2 * LAG_SPAN_S else 0.0), 0.0
            self._began_at += passed_s


def _events(data: bytes) -> list[Any]:
    """Give the events in a message of kombu's; a worker sends many in one."""
    message = json.loads(data)
    body = message["body"]
    encoded = message.get("properties", {}).get("body_encoding") == "base64"
    found = json.loads(b64decode(body) if encoded else body)
    return list(found) if isinstance(found, Iterable) and not isinstance(found, dict | str) else [found]

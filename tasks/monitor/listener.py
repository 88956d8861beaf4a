"""The thread that hears Celery's events, straight from the channels that kombu's fanout publishes them on.

It connects anew after any failure, and if a subscription falls silent; events of that time are missed: they are news.
"""

import json
import time
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

EXCHANGE: Final = "celeryev"


class Listener(Thread):
    """Hears events until it is closed."""

    def __init__(self, url: str, calls: Calls, book: Book) -> None:
        """Prepare to hear over the Redis at `url`."""
        super().__init__("gaia-events", leave_s=news.SILENCE_S)
        self._client = connect(url, reply_timeout_s=news.SILENCE_S)
        number = redis.connection.parse_url(url).get("db", 0)  # type: ignore[no-untyped-call]  # redis-py
        self._pattern = f"/{number}.{EXCHANGE}*"
        self._calls, self._book = calls, book
        self._lag = book.gauge("gaia_monitor_event_lag_seconds", "From the latest event to when it was heard.")

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
        except (ValueError, TypeError, KeyError, RecursionError):
            with self._book.lock:
                self._calls.odd()
            return
        with self._book.lock:
            for each in events:
                self._calls.hear(each)
            with suppress(TypeError, KeyError, ValueError, AttributeError):
                self._lag.of().set(round(max(0.0, time.time() - float(events[-1]["timestamp"])), 3))


def _events(data: bytes) -> list[Any]:
    """Give the events in a message of kombu's; a worker sends many in one."""
    message = json.loads(data)
    body = message["body"]
    encoded = message.get("properties", {}).get("body_encoding") == "base64"
    found = json.loads(b64decode(body) if encoded else body)
    return list(found) if isinstance(found, Iterable) and not isinstance(found, dict | str) else [found]

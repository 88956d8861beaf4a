"""The thread that hears Celery's events, straight from the channels that kombu's fanout publishes them on.

It connects anew after any failure, and if a subscription falls silent; events of that time are missed: they are news.
"""

import json
import logging
import threading
import time
from base64 import b64decode
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from gaia.store.connection import connect
from tasks.monitor.calls import Calls
from tasks.monitor.series import Book

EXCHANGE: Final = "celeryev"
POLL_S: Final = 1.0
RECONNECT_S: Final = 0.5
SILENCE_S: Final = 9.0
"""A subscription that answers no PING for so long is half open."""

log = logging.getLogger(__name__)


class Listener:
    """Hears events until it is closed."""

    def __init__(self, url: str, calls: Calls, book: Book) -> None:
        """Prepare to hear over the Redis at `url`."""
        self._client = connect(url, reply_timeout_s=SILENCE_S)
        number = redis.connection.parse_url(url).get("db", 0)  # type: ignore[no-untyped-call]  # redis-py
        self._pattern = f"/{number}.{EXCHANGE}*"
        self._calls, self._book = calls, book
        self._lag = book.gauge("gaia_monitor_event_lag_seconds", "From the latest event to when it was heard.")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, name="gaia-events", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def alive(self) -> bool:
        """Say whether the thread lives."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End; within about a second."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(SILENCE_S)
        self._client.close()

    def _live(self) -> None:
        while not self._closed.is_set():
            try:
                self._follow()
            except (RedisError, OSError):
                self._closed.wait(RECONNECT_S)
            except Exception:
                log.exception("listening for events failed")
                self._closed.wait(RECONNECT_S)

    def _follow(self) -> None:
        with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # redis-py
            pubsub.psubscribe(self._pattern)
            heard_at = pinged_at = time.monotonic()
            while not self._closed.is_set():
                message = pubsub.get_message(timeout=POLL_S)
                now = time.monotonic()
                if message is not None:
                    heard_at = now
                    if message["type"] == "pmessage":
                        self._hear(message["data"])
                elif now - heard_at > SILENCE_S:
                    raise redis.ConnectionError("no answer to PING")
                elif now - pinged_at > SILENCE_S / 3:
                    pubsub.ping()
                    pinged_at = now

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

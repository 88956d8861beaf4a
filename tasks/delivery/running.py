"""The calls that run in this process, and the thread that hears of their cancellation.

States of a call here: entered, then left. The marks in Redis (`gaia.store.cancel`) are authoritative; the
announcement is only faster. The turn that fetched a call told whether it was marked by then. Announcements since are
remembered here; only if the listener connected later than the call was fetched is the mark read again when the call is
entered. The listener reads the marks of all entered calls whenever it has (re)connected. So no mark is missed in
between. If the thread cannot reach Redis, calls run on uncancelled until it can: cancellation fails open.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.exceptions import RedisError

from gaia.store import cancel, keys
from tasks.delivery import news
from tasks.scope import CancelToken

REMEMBERED: Final = 10_000
"""Announcements kept for calls that were fetched and not yet entered: far more than any worker fetches ahead."""

log = logging.getLogger(__name__)


class Running:
    """Who runs, how to stop them, and whether the worker is past its grace."""

    def __init__(self, client: redis.Redis) -> None:
        """Use the broker's Redis; the thread starts with the first call."""
        self._client = client
        self._lock = threading.Lock()
        self._tokens: dict[str, set[CancelToken]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._connected_at: float | None = None
        self._heard: OrderedDict[str, None] = OrderedDict()

    @property
    def stopping(self) -> bool:
        """Say whether the worker is past its grace: what ends in an error now is handed back."""
        return self._stopping

    @contextmanager
    def entered(self, call_id: str, *, marked: bool = False, fetched_at: float | None = None) -> Iterator[CancelToken]:
        """Give the token of a call, set already if it was cancelled while queued or the worker is stopping.

        `marked` is what was known when the call was fetched, at `fetched_at` or later (monotonic; None if that is not
        known).
        """
        token = self.enter(call_id, marked=marked, fetched_at=fetched_at)
        try:
            yield token
        finally:
            self.leave(call_id, token)

    def enter(self, call_id: str, *, marked: bool, fetched_at: float | None) -> CancelToken:
        """Do what `entered` does at its beginning; whoever calls it calls `leave` at the end."""
        token = CancelToken()
        with self._lock:
            self._tokens.setdefault(call_id, set()).add(token)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="gaia-cancel", daemon=True)
                self._thread.start()
            known = fetched_at is not None and self._connected_at is not None and self._connected_at <= fetched_at
            # Heard of, but perhaps replayed since: the mark in Redis decides.
            known = known and call_id not in self._heard
            cancelled = self._stopping or marked
        if cancelled or (not known and self._marked([call_id])):
            token.set()
        return token

    def leave(self, call_id: str, token: CancelToken) -> None:
        """Forget a call that has ended."""
        with self._lock:
            tokens = self._tokens[call_id]
            tokens.discard(token)
            if not tokens:
                del self._tokens[call_id]

    def was_cancelled(self, call_id: str) -> bool:
        """Say whether the caller cancelled it, rather than the worker's end."""
        return bool(self._marked([call_id]))

    def lose(self, call_id: str) -> None:
        """Stop the runs of a call whose lease was lost: somebody else may run it by now."""
        self._cancel([call_id])

    def stop(self) -> None:
        """Stop every call that runs: the worker's grace is over."""
        with self._lock:
            self._stopping = True
            ids = list(self._tokens)
        self._cancel(ids, stopping=True)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _marked(self, ids: list[str]) -> list[str]:
        try:
            return [each for each, marked in zip(ids, cancel.requested(self._client, ids), strict=True) if marked]
        except RedisError:
            return []  # fail open, see above

    def _cancel(self, ids: list[str], *, stopping: bool = False) -> None:
        with self._lock:
            tokens = [token for each in ids for token in self._tokens.get(each, ())]
        for token in tokens:
            try:
                token.set(stopping=stopping)
            except ExceptionGroup:
                log.exception("a cancelled call could not be woken")

    def _listen(self) -> None:
        news.persist(self._follow, self._closed, "cancellations")

    def _follow(self) -> None:
        try:
            with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # redis-py
                pubsub.subscribe(keys.CANCEL_CHANNEL)
                for message in news.heard(pubsub, self._closed):
                    if message["type"] == "subscribe":
                        self._connected()
                    elif message["type"] == "message":
                        self._hear(message["data"].decode("ascii", "replace"))
        finally:
            with self._lock:
                self._connected_at = None

    def _connected(self) -> None:
        with self._lock:
            self._connected_at = time.monotonic()
            entered = list(self._tokens)
        self._cancel(self._marked(entered))

    def _hear(self, call_id: str) -> None:
        with self._lock:
            self._heard[call_id] = None
            while len(self._heard) > REMEMBERED:
                self._heard.popitem(last=False)
        self._cancel([call_id])

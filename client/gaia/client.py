"""The producer's door: submit calls, wait for results, cancel.

A `Gaia` owns a Celery app for publishing, a Redis client, and one thread that waits for results; all are made when
first needed, shared by the producer's threads, and made anew in a forked child.
"""

import hashlib
import json
import os
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import redis
from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from gaia import redaction, wire
from gaia.contracts.base import Call
from gaia.errors import NotConfigured, PayloadTooLarge, Unreachable
from gaia.pending import Pending, seconds
from gaia.store import cancel as cancel_store
from gaia.store import keys
from gaia.store.artifacts import RedisArtifacts
from gaia.store.connection import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S, connect, reaching, show_url
from gaia.store.idempotency import Keys
from gaia.store.results import Meta, Waiter, parse

R = TypeVar("R")

URL_VARIABLE: Final = "GAIA_REDIS_URL"
RESULT_URL_VARIABLE: Final = "GAIA_RESULT_URL"
KEY_LIMIT: Final = 512

_PUBLISH_RETRY: Final = {"max_retries": 2, "interval_start": 0.05, "interval_step": 0.2, "interval_max": 0.5}
"""Bounded: with Redis away a submit fails within about ten seconds."""


class Gaia:
    """A cluster, seen from a producer. Safe to share between threads; a context manager that closes itself."""

    def __init__(self, url: str | None = None, result_url: str | None = None) -> None:
        """Name the broker's Redis, and the result store's if it is another; by default GAIA_REDIS_URL names them.

        Raises:
            NotConfigured: if there is neither an argument nor the variable.
        """
        url = url or os.environ.get(URL_VARIABLE)
        if not url:
            raise NotConfigured(URL_VARIABLE, "give Gaia(url), or set it; `gaia env` prints it for a local cluster")
        self._url = url
        self._result_url = result_url or os.environ.get(RESULT_URL_VARIABLE) or url
        self.result_url_shown: Final = show_url(self._result_url)
        self._lock = threading.Lock()
        self._waiter: Waiter | None = None
        self._app: Celery | None = None
        self._clients: dict[str, redis.Redis] = {}
        _forget_after_fork(self)

    def __repr__(self) -> str:
        return f"Gaia({show_url(self._url)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def submit(
        self,
        call: Call[R],
        *,
        priority: int = wire.DEFAULT_PRIORITY,
        deadline: float | timedelta = wire.DEFAULT_DEADLINE_S,
        expires: float | timedelta | None = None,
        idempotency_key: str | None = None,
        result: bool = True,
    ) -> Pending[R]:
        """Queue a call.

        Args:
            call: The operation, as `api.Request(url=...)`.
            priority: 0 (first) to 9 (last).
            deadline: Seconds or `timedelta` from now by which the call must have ended; it bounds every wait inside.
            expires: Seconds or `timedelta` from now after which the call is dropped if it has not started.
            idempotency_key: The first call under a key is queued; a later one with the same payload gives a
                `Pending` on the first. Kept for a day.
            result: False stores no result; `get` then raises `NoResult`.

        Raises:
            InvalidCall: a field of the call, or an argument here, is out of bounds.
            PayloadTooLarge: the message is over 1 MiB.
            BodyTooLarge: a body is over 8 MiB.
            KeyReused: the key belongs to a call with another payload.
            Unreachable: Redis did not answer. Whether the call was queued is then unknown; an idempotency key makes
                it safe to submit again.
        """
        now = time.time()
        ends_at = now + _duration(call, "deadline", deadline)
        drop_after_s = None if expires is None else _duration(call, "expires", expires)
        if not isinstance(priority, int) or not 0 <= priority <= 9:  # noqa: PLR2004 - the steps that Celery knows
            raise call.refuse("priority", f"must be an integer from 0 to 9, got {priority!r}")
        call_id = str(uuid.uuid4())
        pending = Pending(self, call_id, type(call), ends_at, stored=result)
        envelope = wire.Envelope(published_at=now, deadline=ends_at, key=idempotency_key)
        options = {"priority": priority, "expires": drop_after_s, "ignore_result": not result}
        if idempotency_key is None:
            self._publish(call, call_id, envelope, options)
            return pending
        with self._claimed(call, call_id, idempotency_key) as holder:
            if holder == call_id:
                self._publish(call, call_id, envelope, options)
        return Pending(self, holder, type(call), ends_at, stored=result)

    def pending(self, call_id: str, kind: type[Call[R]]) -> Pending[R]:
        """Take up a call submitted earlier, perhaps by another process, by its id and type."""
        return Pending(self, call_id, kind, time.time() + wire.DEFAULT_DEADLINE_S)

    def cancel(self, call_id: str) -> None:
        """Cancel a call, queued or running; see `Pending.cancel`.

        Raises:
            Unreachable: Redis did not answer.
        """
        with reaching(self._url):
            cancel_store.request(self.broker(), call_id)

    def close(self) -> None:
        """Give all connections and the thread back. The client may be used again; it then opens new ones."""
        with self._lock:
            waiter, app, clients = self._waiter, self._app, list(self._clients.values())
            self._waiter = self._app = None
            self._clients = {}
        if waiter is not None:
            waiter.close()
        if app is not None:
            app.close()
        for each in clients:
            each.close()
            each.connection_pool.disconnect()

    # --- for Pending

    def waiter(self) -> Waiter:
        """Give the thread that waits for results."""
        with self._lock:
            if self._waiter is None:
                self._waiter = Waiter(self._result_url)
            return self._waiter

    def broker(self) -> "redis.Redis":
        """Give the client of the broker's Redis."""
        return self._client(self._url)

    def results(self) -> "redis.Redis":
        """Give the client of the result store."""
        return self._client(self._result_url)

    def artifacts(self) -> RedisArtifacts:
        """Give the store of large bodies."""
        return RedisArtifacts(self.results())

    def stored(self, call_id: str) -> Meta | None:
        """Read a stored result, None while there is no final one."""
        with self.reaching_results():
            return parse(self.results().get(keys.result(call_id)))

    @contextmanager
    def reaching_results(self) -> Iterator[None]:
        """Translate the failures of the result store."""
        with reaching(self._result_url):
            yield

    # --- inside

    def _forget(self) -> None:
        """Drop what belongs to the parent process, without closing it."""
        self._lock = threading.Lock()
        self._waiter = self._app = None
        self._clients = {}

    def _client(self, url: str) -> "redis.Redis":
        with self._lock:
            if url not in self._clients:
                self._clients[url] = connect(url)
            return self._clients[url]

    def _celery(self) -> Celery:
        with self._lock:
            if self._app is None:
                self._app = _publisher(self._url)
            return self._app

    @contextmanager
    def _claimed(self, call: Call[Any], call_id: str, key: str) -> Iterator[str]:
        """Hold the claim on a key while the call is published; give the id that the key leads to."""
        if not isinstance(key, str) or not 0 < len(key) <= KEY_LIMIT:
            raise call.refuse("idempotency_key", f"must be a string of 1 to {KEY_LIMIT} characters")
        claims = Keys(self.broker())
        with reaching(self._url):
            holder = claims.claim(key, call_id, _digest(call))
        try:
            yield holder
        except Unreachable:
            # It may have been queued: the claim stands until it lapses, so that a quick second try finds this id.
            raise
        except BaseException:
            with reaching(self._url):
                claims.release(key, call_id)
            raise
        if holder == call_id:
            with reaching(self._url):
                claims.confirm(key, call_id)

    def _publish(self, call: Call[Any], call_id: str, envelope: wire.Envelope, options: dict[str, Any]) -> None:
        with reaching(self._result_url):
            fields = call.fields_json(self.artifacts())
        size = len(json.dumps(fields, ensure_ascii=False).encode())
        if size > wire.MESSAGE_LIMIT_BYTES:
            raise PayloadTooLarge(call.OPERATION, size, wire.MESSAGE_LIMIT_BYTES)
        try:
            self._celery().send_task(
                call.OPERATION,
                kwargs=fields,
                task_id=call_id,
                queue=call.QUEUE,
                headers={wire.HEADER: envelope.header()},
                argsrepr="()",
                kwargsrepr=repr(call),
                retry=True,
                retry_policy=_PUBLISH_RETRY,
                **options,
            )
        except (KombuError, OperationalError, redis.RedisError, OSError) as failure:
            raise Unreachable(show_url(self._url), redaction.scrub(str(failure))) from None


def _publisher(url: str) -> Celery:
    app = Celery("gaia", set_as_current=False, broker=url, backend="disabled://")
    app.conf.update(wire.SHARED_OPTIONS)
    app.conf.update(
        broker_transport_options={
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": REPLY_TIMEOUT_S,
            "socket_keepalive": True,
        }
    )
    return app


def _duration(call: Call[Any], name: str, given: float | timedelta) -> float:
    found = seconds(given)
    if not 0 < found < 10 * 365 * 86_400:
        raise call.refuse(name, f"must be a positive duration, got {given!r}")
    return found


def _digest(call: Call[Any]) -> str:
    """Identify a payload. Large bodies count by their content, not by where they are kept."""
    payload = json.dumps([call.OPERATION, call.fields_json()], sort_keys=True)
    return hashlib.sha256(payload.encode()).hexdigest()


def _forget_after_fork(gaia: Gaia) -> None:
    """In a forked child, drop sockets, threads and locks that belong to the parent."""
    held = weakref.ref(gaia)

    def reset() -> None:
        found = held()
        if found is not None:
            found._forget()  # noqa: SLF001 - the same module

    os.register_at_fork(after_in_child=reset)

"""Waiting for results: one thread and one connection per client, however many calls are waited for.

Celery stores a result and announces it on a channel of the same name. The thread owns an event loop, the
subscriptions, and the table of who waits for what; other threads only send it callbacks. Announcements can be lost
(a cut connection, a restart of Redis), so the stored results are authoritative: they are read after every
subscription, after every reconnect, and every few seconds besides.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Final, cast

import redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from gaia import redaction
from gaia.errors import GaiaError
from gaia.store import keys
from gaia.store.connection import connect_async

READY: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
SWEEP_S: Final = 2.0
RECONNECT_S: Final = 0.25

Meta = Mapping[str, Any]
"""What Celery stores: `status`, `result`, and the fields of an error within `result`."""


class _Closed(Exception):  # noqa: N818 - no error: the way out of a task group
    """The waiter was closed."""


def parse(stored: bytes | str | None) -> Meta | None:
    """Give a stored result if it is final, None otherwise; one that nobody can read is a failure."""
    if stored is None:
        return None
    try:
        meta = json.loads(stored)
    except (ValueError, RecursionError):
        return {"status": "FAILURE", "result": {"exc_type": "UnreadableResult", "exc_message": "it is no JSON"}}
    return meta if isinstance(meta, dict) and meta.get("status") in READY else None


def end(client: "redis.Redis", call_id: str, error: GaiaError, *, ttl_s: int) -> bool:
    """Store and announce the error that a call ends with, in Celery's form; False if it has ended already."""
    kind = type(error)
    told = {"exc_type": kind.__name__, "exc_message": list(error.args), "exc_module": kind.__module__}
    return _end(client, call_id, "FAILURE", told, ttl_s)


def succeed(client: "redis.Redis", call_id: str, result: Meta, *, ttl_s: int) -> bool:
    """Store and announce the encoded result of a call, in Celery's form; False if it has ended already."""
    return _end(client, call_id, "SUCCESS", result, ttl_s)


def _end(client: "redis.Redis", call_id: str, status: str, result: Meta, ttl_s: int) -> bool:
    value = json.dumps(
        {
            "status": status,
            "result": result,
            "traceback": None,
            "children": [],
            "date_done": datetime.now(UTC).isoformat(),
            "task_id": call_id,
        }
    )
    if not client.set(keys.result(call_id), value, ex=ttl_s, nx=True):
        return False
    client.publish(keys.result(call_id), value)
    return True


class Waiter:
    """Resolves a future for each call that is waited for."""

    def __init__(self, url: str) -> None:
        """Use the Redis of the results; the thread starts at the first wait."""
        self._url = url
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._waiting: dict[str, list[Future[Meta]]] = {}
        self._changed = asyncio.Event()
        self.failure: str | None = None
        """Why Redis is out of reach at the moment, None while it is not."""

    def wait(self, call_id: str) -> Future[Meta]:
        """Give a future of the call's final result, a cancelled one after `close`.

        Its owner bounds the wait and then calls `forget`.
        """
        future: Future[Meta] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
                return future
            if self._loop is None:
                self._start()
            cast("asyncio.AbstractEventLoop", self._loop).call_soon_threadsafe(self._add, call_id, future)
        return future

    def forget(self, call_id: str, future: Future[Meta]) -> None:
        """Stop waiting; harmless if the result has come."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._remove, call_id, future)

    def close(self) -> None:
        """End the thread. Whoever still waits has their future cancelled."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._closed = True
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):  # it had ended
            loop.call_soon_threadsafe(self._stop)
        thread.join(timeout=5)

    # --- everything below runs on the thread

    def _start(self) -> None:
        loop = asyncio.new_event_loop()
        self._loop = loop
        self._thread = threading.Thread(target=self._main, args=(loop,), name="gaia-results", daemon=True)
        self._thread.start()

    def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._task = loop.create_task(self._run())
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(self._task)
        for futures in self._waiting.values():
            for each in futures:
                each.cancel()
        self._waiting.clear()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def _stop(self) -> None:
        self._changed.set()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Listen; when the connection breaks, begin again."""
        # A task group whose children fail while it is cancelled raises their errors alone, so the flag ends the loop.
        while not self._closed:
            client = connect_async(self._url)
            pubsub = client.pubsub(ignore_subscribe_messages=True)
            try:
                await self._listen(client, pubsub)
            except* Exception as failures:  # noqa: BLE001 - whatever it is, nobody who waits may be forgotten
                first = failures.exceptions[0]
                scrub = redaction.Scrubber(redaction.secrets_of_url(self._url))
                if not self._closed:
                    self.failure = scrub(str(first) or type(first).__name__)
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
                    await client.aclose()
            if not self._closed:
                await asyncio.sleep(RECONNECT_S)

    async def _listen(self, client: Any, pubsub: PubSub) -> None:
        # One subscription of our own keeps the connection in its mode while nobody waits.
        await pubsub.subscribe("gaia:results")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(pubsub))
            tasks.create_task(self._follow(client, pubsub))

    async def _read(self, pubsub: PubSub) -> None:
        """Take announcements as they come."""
        while True:
            found = await pubsub.get_message(timeout=SWEEP_S)
            if found and found["type"] == "message":
                self._resolve(keys.id_of_result(found["channel"].decode()), parse(found["data"]))

    async def _follow(self, client: Any, pubsub: PubSub) -> None:
        """Keep the subscriptions equal to the table, many changes at a time, and read what is stored."""
        subscribed: set[str] = set()
        sweep_at = 0.0
        while not self._closed:
            self._changed.clear()
            wanted = set(self._waiting)
            if fresh := wanted - subscribed:
                await pubsub.subscribe(*map(keys.result, fresh))
            if stale := subscribed - wanted:
                await pubsub.unsubscribe(*map(keys.result, stale))
            subscribed = wanted
            # What is new is read at once; everything every few seconds, however much is new all the time.
            now = asyncio.get_running_loop().time()
            await self._sweep(client, wanted if now >= sweep_at else fresh)
            sweep_at = now + SWEEP_S if now >= sweep_at else sweep_at
            self.failure = None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), SWEEP_S)
        # redis-py now and then takes a cancellation for itself, so that it ends nothing: this ends the group.
        raise _Closed

    async def _sweep(self, client: Any, call_ids: set[str]) -> None:
        ordered = sorted(call_ids)
        if ordered:
            stored = await client.mget([keys.result(each) for each in ordered])
            for call_id, each in zip(ordered, stored, strict=True):
                self._resolve(call_id, parse(each))

    def _add(self, call_id: str, future: Future[Meta]) -> None:
        self._waiting.setdefault(call_id, []).append(future)
        self._changed.set()

    def _remove(self, call_id: str, future: Future[Meta]) -> None:
        waiting = self._waiting.get(call_id, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiting.pop(call_id, None)

    def _resolve(self, call_id: str, meta: Meta | None) -> None:
        if meta is None:
            return
        for each in self._waiting.pop(call_id, []):
            if each.set_running_or_notify_cancel():
                each.set_result(meta)

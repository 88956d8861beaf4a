"""The producer's door: submit calls, wait for results, cancel.

A `Gaia` owns its Redis clients and one thread that waits for results; all are made when first needed, shared by the
producer's threads, and made anew in a forked child.
"""

import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, Final, NamedTuple, Self, TypeVar

import redis

from gaia import message, payloads, wire
from gaia.codec import Artifact
from gaia.contracts.base import Call, is_unicode
from gaia.errors import GaiaError, HolderLost, InvalidCall, KeyReused, NotConfigured
from gaia.outcome import Outcome
from gaia.pending import Pending
from gaia.sticky import HolderId
from gaia.store import cancel as cancel_store
from gaia.store import keys
from gaia.store.artifacts import Artifacts, Keeping, Session
from gaia.store.bodies import Source
from gaia.store.connection import connect, reaching, require_url, show_url
from gaia.store.dead import DeadLetters
from gaia.store.idempotency import kept_s
from gaia.store.limits import Limits
from gaia.store.nodes import Node, Nodes
from gaia.store.queues import Queues
from gaia.store.results import Meta, Waiter, end, parse
from gaia.store.roster import Roster
from gaia.store.scripts import script
from gaia.times import due_at, duration, within

R = TypeVar("R")

URL_VARIABLE: Final = "GAIA_REDIS_URL"
RESULT_URL_VARIABLE: Final = "GAIA_RESULT_URL"
KEY_LIMIT: Final = 512

BATCH: Final = 500
"""Messages in one command of `submit_many`: what an error leaves uncertain, and how long Redis serves nobody else."""

BODY_MARGIN_S: Final = 3600.0
"""Large bodies outlive the deadline of their call by so much: a dead letter may be replayed."""


class _Ready(NamedTuple):
    """A call that is ready to be queued."""

    pending: Pending[Any]
    queue_list: str
    text: str
    due_at: float | None
    ends_at: float
    holder: HolderId | None
    bodies: Session


class Gaia:
    """A cluster, seen from a producer. Safe to share between threads; a context manager that closes itself."""

    def __init__(self, url: str | None = None, result_url: str | None = None, artifacts_url: str | None = None) -> None:
        """Name the broker's Redis, and the result store's if it is another; by default GAIA_REDIS_URL names them.

        `artifacts_url` (GAIA_ARTIFACTS__URL) names the directory for bodies over 8 MiB: the one the workers use.

        Raises:
            NotConfigured: if there is neither an argument nor the variable.
            InvalidSetting: if a URL is malformed.
        """
        url = url or os.environ.get(URL_VARIABLE)
        if not url:
            raise NotConfigured(URL_VARIABLE, "give Gaia(url), or set it; `gaia env` prints it for a local cluster")
        self._url = url
        self._result_url = result_url or os.environ.get(RESULT_URL_VARIABLE) or url
        require_url(URL_VARIABLE, self._url)
        require_url(RESULT_URL_VARIABLE, self._result_url)
        self._keeping = Keeping.read(artifacts_url, os.environ)
        self.result_url_shown: Final = show_url(self._result_url)
        self._lock = threading.Lock()
        self._waiter: Waiter | None = None
        self._clients: dict[tuple[str, int], redis.Redis] = {}
        _opened.add(self)

    def __repr__(self) -> str:
        return f"Gaia({show_url(self._url)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def submit(
        self,
        call: Call[R],
        *,
        priority: int = wire.DEFAULT_PRIORITY,
        deadline: float | timedelta = wire.DEFAULT_DEADLINE_S,
        expires: float | timedelta | None = None,
        delay: float | timedelta | None = None,
        eta: datetime | None = None,
        idempotency_key: str | None = None,
        result: bool = True,
    ) -> Pending[R]:
        """Queue a call.

        Args:
            call: The operation, as `api.Request(url=...)`.
            priority: 0 (first) to 9 (last).
            deadline: Seconds or `timedelta` from now (from its time, if it is delayed) by which the call must have
                ended; it bounds every wait inside.
            expires: The same for its start: a call that has not started by then is dropped.
            delay: Seconds or `timedelta` from now before which it does not start. It waits in Redis.
            eta: The same as a time, with its time zone.
            idempotency_key: The first call under a key is queued; a later one with the same payload gives a
                `Pending` on the first. Kept until a day after the call has ended, as its result is.
            result: False stores no result; `get` then raises `NoResult`.

        Raises:
            InvalidCall: a field of the call, or an argument here, is out of bounds.
            PayloadTooLarge: the message is over 1 MiB.
            ArtifactTooLarge: a body is over 8 MiB, and no artifact directory is named.
            ArtifactsFull, ArtifactsUnavailable: of that directory.
            ArtifactMissing: a body that was put before is gone.
            KeyReused: the key belongs to a call with another payload.
            HolderLost: the call is about something whose worker has ended or was restarted.
            Unreachable: Redis did not answer. Whether the call was queued is then unknown; an idempotency key makes
                it safe to submit again.
        """
        _require_call(call)
        due = due_at(call, delay, eta)
        ready = self._prepare(call, priority, deadline, expires, due, idempotency_key, stored=result)
        if idempotency_key is None and due is None and ready.holder is None:
            with reaching(self._url):
                self._writer().lpush(ready.queue_list, ready.text)
            return ready.pending
        return self._submit_by_script(call, ready, idempotency_key)

    def submit_many(
        self,
        calls: Iterable[Call[R]],
        *,
        priority: int = wire.DEFAULT_PRIORITY,
        deadline: float | timedelta = wire.DEFAULT_DEADLINE_S,
        expires: float | timedelta | None = None,
        result: bool = True,
    ) -> list[Outcome[Pending[R]]]:
        """Queue many calls, 500 a command; the arguments are those of `submit`, for all of them.

        An outcome an item, in order: a `Pending`, or the error that `submit` would have raised. `Unreachable` means
        that it is not known whether that item was queued; all items of its command share that fate.
        """
        found: list[Outcome[Pending[R]]] = []
        remaining = iter(calls)
        while batch := list(islice(remaining, BATCH)):
            found += self._submit_batch(batch, priority, deadline, expires, stored=result)
        return found

    def pending(self, call_id: str, kind: type[Call[R]]) -> Pending[R]:
        """Take up a call submitted earlier, perhaps by another process, by its id and type."""
        return Pending(self, call_id, kind, time.time() + wire.DEFAULT_DEADLINE_S)

    def put(self, source: Source, *, media_type: str = Artifact.media_type, keep: float | timedelta = 0.0) -> Artifact:
        """Store a body to be handed over in a call, in place of its bytes; a file is read a chunk at a time.

        Args:
            source: Bytes, a `Path`, or a file opened to read bytes, which is read to its end and left open.
            media_type: What the body is; kept with the reference.
            keep: How long at least, an hour if that is more. A call that refers to it keeps it past its deadline.

        Raises:
            ArtifactTooLarge: it is over 8 MiB, and no artifact directory is named.
            BodyTooLarge: it is over the whole quota of that directory.
            ArtifactsFull, ArtifactsUnavailable: of that directory.
            FileMissing, FileFailed: the source cannot be read.
            InvalidCall: an argument is out of bounds.
            Unreachable: Redis did not answer.
        """
        keep_s = within(keep)
        if keep_s is None or keep_s < 0:
            raise InvalidCall("put", "keep", "must be a duration, in seconds or as a timedelta, below ten years")
        with reaching(self._result_url):
            return self.artifacts(keep_s=keep_s).put(source, media_type=media_type)

    def open(self, artifact: Artifact) -> BinaryIO:
        """Open a body to be read once from its start, as a context manager.

        Its last bytes come only after its size and checksum were verified: who stops earlier has unverified ones.

        Raises:
            ArtifactMissing: it is gone, or is not what the reference says; the latter also while it is read.
            NotConfigured: it lies in the artifact directory, and none is named here.
            ArtifactsUnavailable: the directory cannot be read; also while it is read.
            Unreachable: Redis did not answer.
        """
        with reaching(self._result_url):
            return self.artifacts().open(artifact)

    def cancel(self, call_id: str, *, deadline: float = 0.0) -> None:
        """Cancel a call, queued or running; see `Pending.cancel`.

        Args:
            call_id: Its id.
            deadline: Of the call, in seconds since the epoch, if it is more than a day away.

        Raises:
            Unreachable: Redis did not answer.
        """
        with reaching(self._url):
            cancel_store.request(self.broker(), call_id, deadline=deadline)
            cancel_store.end_waiting(self.broker(), call_id, partial(self._end, call_id))

    def nodes(self) -> list[Node]:
        """Give the worker processes that live, by name.

        Raises:
            Unreachable: Redis did not answer.
        """
        return Nodes(self.broker(), self._url).list()

    @property
    def queues(self) -> Queues:
        """Pause, resume, and see how much waits."""
        return Queues(self.broker(), self._url)

    @property
    def roots(self) -> Roster:
        """The roots of files that the cluster knows: list, forget."""
        return Roster(self.broker(), self._url)

    @property
    def limits(self) -> Limits:
        """Limits of the cluster, of hosts, keys, jobs and pools: set, get, list, reset."""
        return Limits(self.broker(), self._url)

    @property
    def dead(self) -> DeadLetters:
        """The dead letters: list, show, replay, drop."""
        return DeadLetters(self.broker(), self._url, self.results())

    def close(self) -> None:
        """Give all connections and the thread back. The client may be used again; it then opens new ones."""
        with self._lock:
            waiter, clients = self._waiter, list(self._clients.values())
            self._waiter, self._clients = None, {}
        if waiter is not None:
            waiter.close()
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
        return self._client(self._url, retries=1)

    def results(self) -> "redis.Redis":
        """Give the client of the result store."""
        return self._client(self._result_url, retries=1)

    def artifacts(self, *, keep_s: float = 0.0) -> Artifacts:
        """Give the store of large bodies, which keeps what is stored through it for at least `keep_s`."""
        return self._keeping.store(self.results(), keep_s=keep_s)

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

    def _end(self, call_id: str, error: GaiaError, keep_s: int) -> None:
        with self.reaching_results():
            end(self.results(), call_id, error, ttl_s=keep_s)

    def _forget(self) -> None:
        """Drop what belongs to the parent process, without closing it."""
        self._lock = threading.Lock()
        self._waiter, self._clients = None, {}

    def _writer(self) -> "redis.Redis":
        """Give a client that never repeats a command: repeated, a submit would queue the call twice."""
        return self._client(self._url, retries=0)

    def _client(self, url: str, *, retries: int) -> "redis.Redis":
        with self._lock:
            if (url, retries) not in self._clients:
                self._clients[url, retries] = connect(url, retries=retries)
            return self._clients[url, retries]

    def _prepare(
        self,
        call: Call[R],
        priority: int,
        deadline: float | timedelta,
        expires: float | timedelta | None,
        due_at: float | None,
        key: str | None,
        *,
        stored: bool,
    ) -> _Ready:
        """Check the arguments, store large bodies, and write the message."""
        if type(priority) is not int or not 0 <= priority <= 9:  # noqa: PLR2004 - the steps that Celery knows
            raise call.refuse("priority", "must be an integer from 0 to 9")
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= KEY_LIMIT and is_unicode(key)):
            raise call.refuse("idempotency_key", f"must be a string of 1 to {KEY_LIMIT} characters")
        now = time.time()
        begins_at = now if due_at is None else max(now, due_at)
        ends_at = begins_at + duration(call, "deadline", deadline)
        drop_at = None if expires is None else begins_at + duration(call, "expires", expires)
        bodies = self._keeping.session(self.results, keep_s=ends_at - now + BODY_MARGIN_S)
        with reaching(self._result_url):
            fields = call.fields_json(bodies)
        call_id = message.new_id()
        submitted_at = None if begins_at == now else now
        envelope = wire.Envelope(published_at=begins_at, deadline=ends_at, key=key, submitted_at=submitted_at)
        try:
            text = message.text_of(
                call,
                fields,
                call_id=call_id,
                envelope=envelope,
                priority=priority,
                expires_at=drop_at,
                stored=stored,
            )
        except GaiaError:
            bodies.discard()
            raise
        pending = Pending(self, call_id, type(call), ends_at, stored=stored)
        holder = call.holder()
        queue = call.QUEUE if holder is None else keys.own_queue(holder.node)
        return _Ready(pending, keys.queue_list(queue, priority), text, due_at, ends_at, holder, bodies)

    def _submit_by_script(self, call: Call[R], ready: _Ready, key: str | None) -> Pending[R]:
        """Queue a call under a key, for later, or where its holder lives, in one step.

        With a key, a repeated call of the script is led to the first.
        """
        pending: Pending[R] = ready.pending
        digest = "" if key is None else payloads.digest(call)
        due = "" if ready.due_at is None else f"{ready.due_at:.6f}"
        node, boot = (ready.holder.node, ready.holder.boot) if ready.holder else ("", "")
        names = [ready.queue_list, keys.idempotency(key or ""), keys.DELAYED, keys.DELAYED_MESSAGES, keys.node(node)]
        key_s, stored = kept_s(ready.ends_at), int(pending.stored)
        with reaching(self._url):
            held = script(self._writer(), "submit")(
                keys=names,
                args=[ready.text, pending.id, due, pending.id, digest, key_s, boot, ready.ends_at, stored],
            )
        if not held:
            return pending
        ready.bodies.discard()
        if ready.holder is not None and len(held) == 1:
            raise HolderLost(ready.holder.format())
        first, payload, ends_at, told = (bytes(each or b"").decode() for each in held)
        if payload != digest:
            raise KeyReused(str(key), first)
        return Pending(self, first, type(call), float(ends_at or ready.ends_at), stored=told != "0")

    def _submit_batch(
        self,
        calls: Sequence[Call[R]],
        priority: int,
        deadline: float | timedelta,
        expires: float | timedelta | None,
        *,
        stored: bool,
    ) -> list[Outcome[Pending[R]]]:
        prepared: list[_Ready | GaiaError] = []
        lists: dict[str, list[str]] = {}
        for call in calls:
            try:
                _require_call(call)
                ready = self._prepare(call, priority, deadline, expires, None, None, stored=stored)
                if ready.holder is not None:
                    self._submit_by_script(call, ready, None)
            except GaiaError as error:
                prepared.append(error)
            else:
                prepared.append(ready)
                if ready.holder is None:
                    lists.setdefault(ready.queue_list, []).append(ready.text)
        failures = {name: self._push(name, texts) for name, texts in lists.items()}
        return [
            Outcome(ok=False, error=each)
            if isinstance(each, GaiaError)
            else _outcome(each.pending, failures.get(each.queue_list))
            for each in prepared
        ]

    def _push(self, queue_list: str, texts: list[str]) -> GaiaError | None:
        try:
            with reaching(self._url):
                self._writer().lpush(queue_list, *texts)
        except GaiaError as error:
            return error
        return None


def _require_call(given: object) -> None:
    """Raise `InvalidCall` unless it is one."""
    if not isinstance(given, Call):
        raise InvalidCall("submit", "call", f"must be a call, as api.Request(url=...), got {type(given).__name__}")


def _outcome(pending: Pending[R], error: GaiaError | None) -> Outcome[Pending[R]]:
    return Outcome(ok=True, result=pending) if error is None else Outcome(ok=False, error=error)


_opened: "weakref.WeakSet[Gaia]" = weakref.WeakSet()


def _forget_in_child() -> None:
    """In a forked child, drop sockets, threads and locks that belong to the parent."""
    for each in list(_opened):
        each._forget()  # noqa: SLF001 - the same module


os.register_at_fork(after_in_child=_forget_in_child)

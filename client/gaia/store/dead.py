"""Dead letters: messages that no worker will perform, kept for people to look at, replay or drop.

What gets here: garbage, unknown operations, calls that lost their worker too often, and calls that failed with nobody
to be told. A letter is a Redis hash that expires after thirty days; `gaia:dead` orders them by time. The message is
kept whole, so that it can be replayed; what is shown of it is redacted by the contract's marks.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import redis

from gaia import redaction, wire
from gaia.contracts.base import CALLS, is_unicode, operations
from gaia.errors import NotReplayable
from gaia.message import new_id, opened
from gaia.store import history, keys
from gaia.store.connection import reaching
from gaia.store.history import Event
from gaia.store.idempotency import kept_s
from gaia.store.scripts import script

BODY_LIMIT_BYTES: Final = 64 * 1024
"""Of a message nobody can read, the beginning is enough to see where it came from."""


@dataclass(frozen=True)
class Letter:
    """A dead letter. `at` is seconds since the epoch, `call` the redacted text of what was asked for.

    `attempts` counts the runs that failed, `lost_leases` the workers that died or vanished over it. `submitted_at` is
    when the call was first submitted, None if its producer did not say; `history` is what happened to it since, the
    oldest first, before the `reason` and `error` for which it is here.
    """

    id: str
    queue: str
    operation: str
    reason: str
    error: str
    at: float
    attempts: int
    lost_leases: int
    size_bytes: int
    call: str
    submitted_at: float | None = None
    history: tuple[Event, ...] = ()


def park(client: "redis.Redis", *, queue: str, reason: str, message: bytes, call_id: str = "") -> None:
    """Keep a message that is no call, with the reason why it was not performed."""
    letter: list[Any] = ["queue", queue, "reason", reason, "message", message[:BODY_LIMIT_BYTES]]
    script(client, "bury")(args=[call_id, *letter])


class DeadLetters:
    """`Gaia.dead`."""

    def __init__(self, client: "redis.Redis", url: str, results: "redis.Redis") -> None:
        """Use the clients of broker and result store; `url` is for errors."""
        self._client = client
        self._url = url
        self._results = results

    def list(self, limit: int = 100) -> "list[Letter]":
        """Give the newest letters first.

        Raises:
            Unreachable: if Redis did not answer.
        """
        with reaching(self._url):
            found: Any = self._client.zrange(keys.DEAD, 0, max(limit, 1) - 1, desc=True)
            ids = [each.decode() for each in found]
        return [letter for letter in map(self.show, ids) if letter is not None]

    def show(self, letter_id: str) -> Letter | None:
        """Give one letter, None if it is not there or has expired."""
        if not is_unicode(letter_id):
            return None
        with reaching(self._url):
            found: Any = self._client.hgetall(keys.dead_letter(letter_id))
            if not found:
                self._client.zrem(keys.DEAD, letter_id)
                return None
            return _letter(letter_id, found, history.read(self._client, letter_id))

    def replay(self, letter_id: str) -> bool:
        """Queue the call again under its id, behind all others, with a fresh deadline of the same length.

        Returns False if the letter is not there.

        Raises:
            NotReplayable: if the message is no call.
            Unreachable: if Redis did not answer.
        """
        if not is_unicode(letter_id):
            return False
        with reaching(self._url):
            found: Any = self._client.hgetall(keys.dead_letter(letter_id))
            if not found:
                return False
            fresh = _fresh(letter_id, found)
            if fresh.call_id:
                self._results.delete(keys.result(fresh.call_id))
            names = [keys.dead_letter(letter_id), keys.DEAD, found[b"list"], keys.idempotency(fresh.key or "")]
            died = Event(_at(found), f"became a dead letter: {_text(found, 'reason')}", _text(found, "error"))
            told = [history.field(died.what, died.at), died.text()]
            arguments: list[Any] = [letter_id, fresh.message, fresh.call_id, *told, kept_s(fresh.deadline)]
            return bool(script(self._client, "replay")(keys=names, args=arguments))

    def drop(self, letter_id: str) -> bool:
        """Remove a letter for good; False if it is not there."""
        if not is_unicode(letter_id):
            return False
        with reaching(self._url), self._client.pipeline() as pipe:
            pipe.delete(keys.dead_letter(letter_id))
            pipe.delete(keys.history(letter_id))
            pipe.zrem(keys.DEAD, letter_id)
            return bool(pipe.execute()[0])

    def ids(self) -> "Iterable[str]":
        """Give the ids of all letters, the oldest first."""
        with reaching(self._url):
            found: Any = self._client.zrange(keys.DEAD, 0, -1)
            return [each.decode() for each in found]


def _text(found: Mapping[bytes, bytes], name: str) -> str:
    return found.get(name.encode(), b"").decode("utf-8", "replace")


def _at(found: Mapping[bytes, bytes]) -> float:
    return float(found.get(b"at", 0))


def _letter(letter_id: str, found: Mapping[bytes, bytes], events: tuple[Event, ...]) -> Letter:
    raw = found.get(b"message", b"")
    headers, fields = opened(raw)
    operation = str(headers.get("task") or "")
    return Letter(
        id=letter_id,
        queue=_text(found, "queue"),
        operation=operation,
        reason=_text(found, "reason"),
        error=redaction.scrub(_text(found, "error")),
        at=_at(found),
        attempts=int(headers["retries"]) + 1 if isinstance(headers.get("retries"), int) else 0,
        lost_leases=int(found.get(b"lost", 0)),
        size_bytes=len(raw),
        call=_shown(operation, fields),
        submitted_at=wire.submitted_at(headers.get(wire.HEADER)),
        history=tuple(Event(each.at, each.what, redaction.scrub(each.error)) for each in events),
    )


def _shown(operation: str, fields: object) -> str:
    contract = CALLS.get(operation) if operation in operations(operation.partition(".")[0]) else None
    if contract is None or not isinstance(fields, Mapping):
        return redaction.MASK
    return redaction.show_json(contract, fields)


@dataclass(frozen=True)
class _Fresh:
    """A call as if it were submitted now."""

    message: str
    call_id: str
    key: str | None
    deadline: float


def _fresh(letter_id: str, found: Mapping[bytes, bytes]) -> _Fresh:
    headers, fields = opened(found.get(b"message", b""))
    if not headers or not isinstance(fields, Mapping) or b"list" not in found:
        raise NotReplayable(letter_id, "the message is no call")
    message = json.loads(found[b"message"])
    now = time.time()
    given = headers.get(wire.HEADER)
    at, deadline = wire.times(given)
    lasted_s = deadline - at if at is not None and deadline is not None else 0.0
    ends_at = now + (lasted_s if lasted_s > 0 else wire.DEFAULT_DEADLINE_S)
    kept = {name: value for name, value in given.items() if name != "again"} if isinstance(given, Mapping) else {}
    envelope = {**kept, "at": now, "deadline": ends_at}
    first = wire.submitted_at(given)
    if first is not None:
        envelope["submitted"] = first
    message["headers"].update({"retries": 0, "eta": None, "expires": None, wire.HEADER: envelope})
    message["properties"]["delivery_tag"] = new_id()
    return _Fresh(json.dumps(message), str(headers.get("id") or ""), wire.key(given), ends_at)

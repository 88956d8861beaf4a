"""A task message as the worker holds it: its arguments are shown redacted, whoever wrote it.

A foreign producer's message carries `kwargsrepr` with everything in the clear. Celery copies it into events, logs and
the answers of `inspect`, so it is replaced before anything else sees the request.
"""

import time
from collections.abc import Mapping
from math import inf
from typing import Any, Final

from celery.exceptions import InvalidTaskError
from celery.worker.request import Request

from gaia import redaction, wire
from gaia.contracts.base import CALLS
from tasks.broker.holders import holding
from tasks.runtime.pool import GivenBackError

SIZE: Final = "gaia_size_bytes"
"""In what a run is told: the bytes of its message's body."""


class RedactedRequest(Request):
    """Celery's request with the redacted call in place of its arguments."""

    def __init__(self, message: Any, **options: Any) -> None:
        """Read the message.

        Raises:
            InvalidTaskError: if the body is not Celery's triple of arguments, fields and options.
        """
        try:
            super().__init__(message, **options)
        except (ValueError, TypeError, KeyError, AttributeError) as failure:
            kind = type(failure).__name__
            raise InvalidTaskError(f"the body is no task message ({kind})") from None
        if not isinstance(self._kwargs, dict):
            raise InvalidTaskError("the fields of a call must be an object")
        _require_links(self._payload[2])
        self._argsrepr = "()" if not self._args else redaction.MASK
        self._kwargsrepr = shown(self._type, self._kwargs)
        self._request_dict["argsrepr"] = self._argsrepr
        self._request_dict["kwargsrepr"] = self._kwargsrepr
        self._request_dict[SIZE] = len(message.body)
        self._await_slot(str(message.delivery_tag))

    def _await_slot(self, tag: str) -> None:
        """Say that the message waits for a free slot, if this process holds it."""
        self._tag = tag
        held = holding(tag)
        if held is not None:
            held.wait(tag, inf)
        self._is_leased = held is not None

    def on_accepted(self, pid: Any, time_accepted: Any) -> None:
        """Begin the run, in a thread of the pool.

        Raises:
            GivenBackError: if the worker began to end meanwhile; then the pool does not run it.
        """
        held = holding(self._tag)
        if self._is_leased and (held is None or not held.start(self._tag, inf)):
            raise GivenBackError(self.id)
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, *arguments: Any, **options: Any) -> None:
        """Bring a call that has ended in anything but a result to its end, and let go of its error."""
        try:
            super().on_failure(exc_info, *arguments, **options)
        finally:
            _let_go(exc_info)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Send an event; that of the start tells how long the call had waited."""
        if type == "task-started":
            fields |= waited(self.request_dict, self.request_dict.get("properties") or {}, time.time())
        super().send_event(type, **fields)

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Celery's signature
        """Describe the request for `inspect`, redacted even where Celery would show the arguments."""
        del safe
        found: dict[str, Any] = super().info(safe=True)
        return found


def _let_go(ended: Any) -> None:
    """Break the circle of an error whose call has ended: its traceback holds the tracer's frame, and that the error.

    Celery's copy of the traceback has a tuple for every instruction of each function, 230 KiB an error, which the
    garbage collector takes for a few dozen objects: hundreds of errors would wait for it.
    """
    error = getattr(ended, "exception", None)
    error = getattr(error, "exc", error)
    if isinstance(error, BaseException):
        error.__traceback__ = None


def waited(headers: Mapping[str, Any], properties: Mapping[str, Any], now: float) -> dict[str, float]:
    """Give `waited`, seconds from submit to now, of a first run whose message says when it was submitted.

    Nobody else could tell: Celery's messages hold no time, and most producers send no events.
    """
    found = first_wait_s(headers, properties, now)
    return {} if found is None else {"waited": round(found, 6)}


def first_wait_s(headers: Mapping[str, Any], properties: Mapping[str, Any], now: float) -> float | None:
    """Give the seconds from submit to now of a first run; None of another, or if the message does not say."""
    waits_since = wire.waits_since(headers.get(wire.HEADER))
    if waits_since is None or headers.get("retries") or properties.get("gaia_lost"):
        return None
    return max(0.0, now - waits_since)


def _require_links(embed: object) -> None:
    """Check what Celery follows when a call has ended: it does so unguarded, and the message would never end.

    Raises:
        InvalidTaskError: unless each link is a signature.
    """
    if not isinstance(embed, Mapping):
        raise InvalidTaskError("the options of a call must be an object")
    links = [embed.get(name) or [] for name in ("callbacks", "errbacks", "chain")]
    chord = embed.get("chord")
    links.append([] if chord is None else [chord])
    for each in links:
        if not isinstance(each, list) or not all(map(_is_signature, each)):
            raise InvalidTaskError("its links are no signatures")


def _is_signature(link: object) -> bool:
    return isinstance(link, Mapping) and isinstance(link.get("task"), str)


def shown(operation: str, fields: dict[str, Any]) -> str:
    """Give the redacted text of a call's fields."""
    contract = CALLS.get(operation)
    return redaction.MASK if contract is None else redaction.show_json(contract, fields)

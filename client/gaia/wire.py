"""What both sides of the queue must agree on: the envelope, the queues, and Celery's shared options.

A message is a Celery task message (protocol 2, JSON). The operation is the task's name, the call's fields are its
keyword arguments, and what Gaia adds travels in one header, `gaia`:

    {"v": 1, "at": 1763886000.0, "deadline": 1763886900.0, "key": "order-7"}

A producer that knows nothing of the header may leave it out: every part has a default. A worker that lets a call come
back later, or leads it to another, adds `again`, the time from when it waits anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gaia.errors import InvalidCall, NewerPayload

QUEUES: Final = ("api", "files", "browser", "process", "network")
HEADER: Final = "gaia"
PAYLOAD_VERSION: Final = 1

MESSAGE_LIMIT_BYTES: Final = 1024 * 1024
"""Larger calls are refused at submit; large bodies travel as artifacts and count little."""

DEFAULT_DEADLINE_S: Final = 900.0
DEFAULT_PRIORITY: Final = 0
"""0 is the highest of 0 to 9, as in Celery on Redis; kombu keeps four lists, for 0-2, 3-5, 6-8 and 9."""

LAST_TIME_S: Final = 253_402_300_799.0
"""The end of the year 9999: what a `datetime` can hold."""

RESULT_TTL_S: Final = 3600

SHARED_OPTIONS: Final[Mapping[str, Any]] = {
    "task_protocol": 2,
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "enable_utc": True,
    "timezone": "UTC",
    "result_expires": RESULT_TTL_S,
    # The stored result holds the reply and the error, never the arguments.
    "result_extended": False,
    "broker_connection_timeout": 3.0,
    "task_default_priority": DEFAULT_PRIORITY,
}
"""Celery options that producers and workers share. Time-outs of sockets are each side's own."""


@dataclass(slots=True)
class Envelope:
    """What a message says besides its call. Times are seconds since the epoch."""

    version: int = PAYLOAD_VERSION
    published_at: float | None = None
    deadline: float | None = None
    key: str | None = None
    submitted_at: float | None = None
    """Unless that is when it was published: a delayed call counts from its time, a replayed one from its replay."""

    def header(self) -> dict[str, Any]:
        """Give the header's value, unset parts left out."""
        parts = {"v": self.version, "at": self.published_at, "deadline": self.deadline, "key": self.key}
        parts["submitted"] = self.submitted_at
        return {name: value for name, value in parts.items() if value is not None}

    def text(self) -> str:
        """Give the header's value as JSON."""
        if (
            self.key is None
            and self.submitted_at is None
            and self.published_at is not None
            and self.deadline is not None
        ):
            # What most messages have, several times as fast: a float's repr is its JSON (RFC 8259 section 6).
            return f'{{"v": {self.version}, "at": {self.published_at!r}, "deadline": {self.deadline!r}}}'
        return json.dumps(self.header())

    @classmethod
    def read(cls, operation: str, given: object) -> "Envelope":
        """Read the header's value, None included.

        Raises:
            InvalidCall: if it is not of the form above.
            NewerPayload: if its version is not known here.
        """
        if given is None:
            return cls()
        if not isinstance(given, dict):
            raise InvalidCall(operation, HEADER, "must be an object")
        version = given.get("v", PAYLOAD_VERSION)
        if not isinstance(version, int) or isinstance(version, bool):
            raise InvalidCall(operation, f"{HEADER}.v", "must be an integer")
        if version > PAYLOAD_VERSION:
            raise NewerPayload(operation, version, PAYLOAD_VERSION)
        key = given.get("key")
        if key is not None and not isinstance(key, str):
            raise InvalidCall(operation, f"{HEADER}.key", "must be a string")
        return cls(version, _time(operation, given, "at"), _time(operation, given, "deadline"), key)


def times(given: object) -> tuple[float | None, float | None]:
    """Give the publish time and the deadline of a header's value, whatever its version; None for what it has not."""
    if not isinstance(given, dict):
        return None, None
    return _seconds(given.get("at")), _seconds(given.get("deadline"))


def waits_since(given: object) -> float | None:
    """Give since when a header's call waits for its first run; None if it had one, or does not say."""
    return None if isinstance(given, Mapping) and "again" in given else times(given)[0]


def waiting_again(given: object, since: float) -> object:
    """Give a header's value for a call that waits anew; what is no header stays as it is.

    The mark comes first: who looks at a message without reading all of it finds it there.
    """
    return {"again": since} | {**given, "again": since} if isinstance(given, Mapping) else given


def submitted_at(given: object) -> float | None:
    """Give when a header's call was first submitted, None if it does not say."""
    found = _seconds(given.get("submitted")) if isinstance(given, Mapping) else None
    return times(given)[0] if found is None else found


def key(given: object) -> str | None:
    """Give the idempotency key of a header's value, whatever its version; None if it has none."""
    found = given.get("key") if isinstance(given, Mapping) else None
    return found if isinstance(found, str) else None


def _seconds(value: object) -> float | None:
    """Read a time; None if it is none. Foreign JSON may hold NaN, or integers beyond every float."""
    if type(value) is float:
        return value if -LAST_TIME_S <= value <= LAST_TIME_S else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) <= LAST_TIME_S else None


def _time(operation: str, given: Mapping[str, object], name: str) -> float | None:
    if given.get(name) is None:
        return None
    found = _seconds(given[name])
    if found is None:
        raise InvalidCall(operation, f"{HEADER}.{name}", "must be seconds since the epoch")
    return found

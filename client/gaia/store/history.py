"""What happened to a call before it became a dead letter: runs that failed, workers that were lost, earlier replays.

A hash a call, kept past the call's deadline by an hour; the script that makes a dead letter keeps it as long as the
letter. Only what is out of the ordinary is recorded, so a call that goes well costs nothing here.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

import redis

from gaia.store import keys

MARGIN_S: Final = 3600.0
TEXT_LIMIT: Final = 2000
"""Characters of one error that are kept."""


@dataclass(frozen=True)
class Event:
    """One thing that happened to a call, at `at`, seconds since the epoch. `error` is without secrets."""

    at: float
    what: str
    error: str = ""

    def text(self) -> str:
        """Give the event as it is stored."""
        return json.dumps({"at": self.at, "what": self.what, "error": self.error[:TEXT_LIMIT]})


def record(client: "redis.Redis", call_id: str, event: Event, *, life: float | None, left_s: float) -> None:
    """Record an event once; again in the same life of the call changes nothing.

    `life` tells the lives of a replayed call apart: when it was published. `left_s` is what is left of its deadline.
    """
    name = keys.history(call_id)
    with client.pipeline() as pipe:
        pipe.hsetnx(name, field(event.what, life), event.text())
        pipe.expire(name, int(max(0.0, left_s) + MARGIN_S))
        pipe.execute()


def field(what: str, life: float | None) -> str:
    """Name an event within the history of its call."""
    return f"{life or 0:.3f} {what}"


def read(client: "redis.Redis", call_id: str) -> tuple[Event, ...]:
    """Give what happened to a call, the oldest first."""
    found: Any = client.hvals(keys.history(call_id))
    return tuple(sorted((_event(each) for each in found), key=lambda each: each.at))


def _event(stored: bytes) -> Event:
    found = json.loads(stored)
    return Event(float(found["at"]), str(found["what"]), str(found["error"]))

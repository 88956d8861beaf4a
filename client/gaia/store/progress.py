"""How far a running call is: the latest word of its worker, kept for an hour."""

import json
from dataclasses import asdict, dataclass

import redis

from gaia import codec
from gaia.store import keys


@dataclass(frozen=True)
class Progress:
    """`done` of `total` (None: unknown) in the operation's own unit; `at` is seconds since the epoch."""

    done: float
    total: float | None
    note: str
    at: float


def store(client: redis.Redis, call_id: str, progress: Progress) -> None:
    """Replace what is known of a call."""
    client.set(keys.progress(call_id), json.dumps(asdict(progress)), ex=keys.PROGRESS_TTL_S)


def fetch(client: redis.Redis, call_id: str) -> Progress | None:
    """Give the latest, None if the call reported nothing (yet, or any more)."""
    found = client.get(keys.progress(call_id))
    if found is None:
        return None
    try:
        return codec.decode(Progress, json.loads(found), lenient=True)
    except ValueError:  # of a worker of another version
        return None

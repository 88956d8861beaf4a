"""Cancellation: a mark for calls that are still queued, an announcement for those that run, an end for those that wait.

A worker looks at the mark when it fetches a call. A call that is delayed, or held up by a pause, is not fetched for a
long time, so whoever cancels it ends it, too: first its result is stored, then its message removed. Whatever happens in
between, a worker that meets the message finds the mark and comes to the same end.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import redis

from gaia import wire
from gaia.errors import Cancelled, GaiaError
from gaia.message import opened
from gaia.store import idempotency, keys
from gaia.store.scripts import script

SEEK: Final = 100
"""Messages looked at in one command: each may have a megabyte, and Redis serves nobody else meanwhile."""

SOUGHT: Final = 10_000
"""Messages looked at on one list. A call behind so many others of a paused name ends when it is fetched."""


def request(client: redis.Redis, call_id: str, *, deadline: float = 0.0) -> None:
    """Mark a call as cancelled and tell the workers. Repeating it changes nothing.

    The mark is kept a day, and past the call's `deadline` (seconds since the epoch) if that is later.
    """
    keep_s = int(max(0.0, deadline - time.time())) + keys.CANCEL_TTL_S
    with client.pipeline(transaction=False) as pipe:
        pipe.set(keys.cancel(call_id), 1, ex=keep_s)
        pipe.publish(keys.CANCEL_CHANNEL, call_id)
        pipe.execute()


def requested(client: redis.Redis, call_ids: Sequence[str]) -> list[bool]:
    """Say for each call whether it is marked."""
    return [each is not None for each in client.mget([keys.cancel(each) for each in call_ids])] if call_ids else []


def end_waiting(broker: redis.Redis, call_id: str, store: Callable[[GaiaError, int], object]) -> bool:
    """End a call, marked before, that is delayed or held up by a pause; False if it is neither.

    `store` stores what the call ends with, unless it has ended, for so many seconds. A stock producer's `countdown` is
    not found: such a call ends when it is due.
    """
    entry: Any = broker.hget(keys.DELAYED_MESSAGES, call_id)
    if entry is not None:
        _answer(broker, call_id, entry, store)
        script(broker, "withdraw")(keys=[keys.DELAYED, keys.DELAYED_MESSAGES], args=[call_id, entry])
        return True
    for name in _paused_lists(broker):
        entry = _seek(broker, name, call_id)
        if entry is not None:
            _answer(broker, call_id, entry, store)
            broker.lrem(name, -1, entry)
            return True
    return False


def _answer(broker: redis.Redis, call_id: str, entry: bytes, store: Callable[[GaiaError, int], object]) -> None:
    """Store `Cancelled`, unless nobody is to be told."""
    # A message on its own begins with a brace; before others stands the list they belong to.
    headers, _ = opened(entry if entry.startswith(b"{") else entry.partition(b"\n")[2])
    key = wire.key(headers.get(wire.HEADER))
    if not headers.get("ignore_result"):
        store(Cancelled(call_id), wire.RESULT_TTL_S if key is None else keys.KEY_TTL_S)
    if key is not None:
        idempotency.settle(broker, key, call_id)


def _paused_lists(broker: redis.Redis) -> Iterator[str]:
    """Name the lists that nobody fetches from: of paused queues, and of what was put aside."""
    paused: Any = broker.smembers(keys.PAUSED)
    for each in sorted(name.decode() for name in paused):
        yield keys.aside(each)
        if "." not in each:
            yield from (keys.queue_list(each, step) for step in keys.PRIORITY_STEPS)


def _seek(broker: redis.Redis, name: str, call_id: str) -> Any:
    """Give the entry of a call on a list as it stands there, None if it is not found."""
    for seen in range(0, SOUGHT, SEEK):
        found = script(broker, "seek")(keys=[name], args=[json.dumps(call_id), seen, SEEK])
        if isinstance(found, bytes):
            return found
        if found == 0:
            break
    return None

"""Answers for calls that lay on the queue of a worker that has gone: `HolderLost`, so that nobody waits in vain.

Answering twice changes nothing: several workers may read the same orphan, and a worker may die between the answer and
the removal.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import redis

from gaia import wire
from gaia.contracts.base import CALLS, is_unicode
from gaia.errors import Cancelled, GaiaError, HolderLost
from gaia.message import opened
from gaia.store import cancel, dead, idempotency, keys, results
from gaia.store.scripts import script

log = logging.getLogger(__name__)

REASON: Final = "the worker it was for has gone, and its result is stored for nobody"


class Orphans:
    """Stores the answers."""

    def __init__(self, broker: redis.Redis, stored: redis.Redis) -> None:
        """Use clients of the broker and of the result store that answer soon: a heartbeat waits for them."""
        self._broker = broker
        self._results = stored

    def answer(self, message: bytes) -> None:
        """Give a message's caller `HolderLost`, or `Cancelled`; without a caller it becomes a dead letter."""
        headers, fields = opened(message)
        call_id, operation = headers.get("id"), str(headers.get("task"))
        if not isinstance(call_id, str):
            dead.park(self._broker, queue="", reason="no message: it has no id", message=message)
            return
        if not is_unicode(call_id):
            # Nobody can wait for it, and no key of Redis can hold it.
            dead.park(self._broker, queue="", reason="no message: its id is no text", message=message)
            return
        (cancelled,) = cancel.requested(self._broker, [call_id])
        error = Cancelled(call_id) if cancelled else HolderLost(holder_of(operation, fields) or call_id)
        if not headers.get("ignore_result"):
            self._store(call_id, headers.get(wire.HEADER), error)
        elif not cancelled:
            self._bury(call_id, operation, message, error)

    def _store(self, call_id: str, envelope: object, error: GaiaError) -> None:
        """Store the error unless there is a result, and announce it."""
        key = wire.key(envelope)
        if results.end(self._results, call_id, error, ttl_s=wire.RESULT_TTL_S if key is None else keys.KEY_TTL_S):
            log.info("call %s was answered for a worker that has gone", call_id)
        if key is not None:
            idempotency.settle(self._broker, key, call_id)

    def _bury(self, call_id: str, operation: str, message: bytes, error: GaiaError) -> None:
        queue = operation.partition(".")[0]
        letter: dict[str, Any] = {
            "queue": queue,
            "list": queue,
            "reason": REASON,
            "error": str(error),
            "message": message,
        }
        fields: list[Any] = [part for pair in letter.items() for part in pair]
        script(self._broker, "bury")(args=[call_id, *fields])


def holder_of(operation: str, fields: object) -> str | None:
    """Give the id of what a call is about, as far as its message has one."""
    contract = CALLS.get(operation)
    if contract is None or contract.HOLDER is None or not isinstance(fields, Mapping):
        return None
    found = fields.get(contract.HOLDER)
    return found[:2000] if isinstance(found, str) else None

"""Answers for calls that lay on the queue of a worker that has gone: `HolderLost`, so that nobody waits in vain.

Answering twice changes nothing: several workers may read the same orphan, and a worker may die between the answer and
the removal.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import redis

from gaia import wire
from gaia.contracts.base import CALLS
from gaia.errors import HolderLost
from gaia.message import opened
from gaia.store import dead, keys
from gaia.store.scripts import script

log = logging.getLogger(__name__)

REASON: Final = "the worker it was for has gone, and its result is stored for nobody"


class Orphans:
    """Stores the answers."""

    def __init__(self, broker: redis.Redis, results: redis.Redis, backend: Any) -> None:
        """Use Celery's backend for the form of a result alone; its own writing waits too long for a heartbeat."""
        self._broker = broker
        self._results = results
        self._backend = backend

    def answer(self, message: bytes) -> None:
        """Give a message's caller `HolderLost`; without a caller it becomes a dead letter."""
        headers, fields = opened(message)
        call_id, operation = headers.get("id"), str(headers.get("task"))
        if not isinstance(call_id, str):
            dead.park(self._broker, queue="", reason="no message: it has no id", message=message)
            return
        error = HolderLost(_holder_of(operation, fields) or call_id)
        log.info("call %s (%s) was answered for a worker that has gone", call_id, operation[:200])
        if headers.get("ignore_result"):
            self._bury(call_id, operation, message, error)
        else:
            self._store(call_id, headers.get(wire.HEADER), error)

    def _store(self, call_id: str, envelope: object, error: HolderLost) -> None:
        """Store the error unless there is a result, and announce it."""
        meta = self._backend._get_result_meta(  # noqa: SLF001 - the one place where Celery gives a result its form
            result=self._backend.prepare_exception(error), state="FAILURE", traceback=None, request=None
        )
        value = self._backend.encode({**meta, "task_id": call_id})
        keyed = isinstance(envelope, Mapping) and envelope.get("key") is not None
        ttl_s = keys.KEY_TTL_S if keyed else wire.RESULT_TTL_S
        if self._results.set(keys.result(call_id), value, ex=ttl_s, nx=True):
            self._results.publish(keys.result(call_id), value)

    def _bury(self, call_id: str, operation: str, message: bytes, error: HolderLost) -> None:
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


def _holder_of(operation: str, fields: object) -> str | None:
    contract = CALLS.get(operation)
    if contract is None or contract.HOLDER is None or not isinstance(fields, Mapping):
        return None
    found = fields.get(contract.HOLDER)
    return found[:2000] if isinstance(found, str) else None

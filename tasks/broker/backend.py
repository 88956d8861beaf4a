"""Celery's Redis result store, with results that travel with the commit of their message, or just before it.

The tracer stores a result, then the consumer acknowledges the message: two round trips, and a worker that dies between
them runs a call again whose result is known. Here the result waits for the acknowledgement and both go in one script
call of the next turn, checked against the lease: a holder whose lease lapsed can neither commit nor store. Where
results lie in another Redis, a thread stores them there first, see `tasks.broker.storing`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery.backends.redis import RedisBackend

from gaia import wire
from gaia.store import keys
from tasks.broker import jsontext
from tasks.broker.holders import holding


class Backend(RedisBackend):
    """The result store of workers."""

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        """Let the result wait for its message's commit; one that belongs to no held message is stored at once."""
        if state == "RETRY":
            return result  # the call goes on: nobody waits for this
        properties = getattr(request, "properties", None) or {}
        tag = properties.get("delivery_tag")
        holder = holding(tag) if tag and not getattr(request, "chord", None) else None
        if tag and holder is not None:
            meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
            meta["task_id"] = task_id
            envelope = getattr(request, wire.HEADER, None)
            keyed = isinstance(envelope, dict) and envelope.get("key") is not None
            if holder.result(tag, self._key(task_id), self.encode(meta), self._kept_s(keyed=keyed)):
                return result
        if "gaia_at" in properties and not getattr(request, "chord", None):
            # It came by lease and was given back: whoever holds it now stores the result.
            return result
        return super()._store_result(task_id, result, state, traceback=traceback, request=request, **options)

    def succeed(self, tag: str, headers: Mapping[str, Any], result: bytes) -> bool:
        """Let the result of a plain message, given as JSON text, wait for the message's commit.

        The stored text says what Celery's would say. False if the message is not held here, or if results are
        to be stored in another form than JSON.
        """
        holder = holding(tag)
        if holder is None or self.serializer != "json" or self.compression:
            return False
        envelope = headers.get(wire.HEADER)
        keyed = isinstance(envelope, dict) and envelope.get("key") is not None
        meta: dict[str, Any] = {
            "traceback": None,
            "children": [],
            "date_done": datetime.now(UTC).isoformat(),
        }
        if headers.get("parent_id"):
            meta["parent_id"] = headers["parent_id"]
        meta["task_id"] = headers["id"]
        text = b"".join((b'{"status":"SUCCESS","result":', result, b",", jsontext.dumps(meta)[1:]))
        return holder.result(tag, self._key(headers["id"]), text, self._kept_s(keyed=keyed))

    def _key(self, task_id: str) -> str:
        key = self.get_key_for_task(task_id)
        return key.decode() if isinstance(key, bytes) else key

    def _kept_s(self, *, keyed: bool) -> int:
        """Give how long an outcome is kept: one under an idempotency key as long as the key leads to it."""
        return keys.KEY_TTL_S if keyed else int(self.expires or 0) or keys.KEY_TTL_S

"""Celery's Redis result store, with results that travel with the commit of their message.

The tracer stores a result, then the consumer acknowledges the message: two round trips, and a worker that dies between
them runs a call again whose result is known. Here the result waits for the acknowledgement and both go in one script
call of the next turn, checked against the lease: a holder whose lease lapsed can neither commit nor store.
"""

from typing import Any

from celery.backends.redis import RedisBackend

from gaia import wire
from gaia.store import keys
from tasks.broker.holder import holding


class Backend(RedisBackend):
    """To be used where results lie in the broker's own Redis."""

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
            key = self.get_key_for_task(task_id)
            key = key.decode() if isinstance(key, bytes) else key
            envelope = getattr(request, wire.HEADER, None)
            keyed = isinstance(envelope, dict) and envelope.get("key") is not None
            # The outcome under an idempotency key is kept as long as the key leads to it.
            ttl_s = keys.KEY_TTL_S if keyed else int(self.expires or 0) or keys.KEY_TTL_S
            if holder.result(tag, key, self.encode(meta), ttl_s):
                return result
        if "gaia_at" in properties and not getattr(request, "chord", None):
            # It came by lease and was given back: whoever holds it now stores the result.
            return result
        return super()._store_result(task_id, result, state, traceback=traceback, request=request, **options)

"""Idempotency keys: the first submit under a key wins, later ones are led to its call.

The record in Redis is authoritative. A claim lapses after a minute unless it is confirmed once the message is queued,
so a producer that dies in between blocks its key no longer than that.
"""

from typing import Final

import redis

from gaia.errors import KeyReused
from gaia.store import keys
from gaia.store.scripts import script

CLAIM_TTL_S: Final = 60


class Keys:
    """Claims on idempotency keys."""

    def __init__(self, client: redis.Redis) -> None:
        """Use a client; nothing is sent yet."""
        self._claim = script(client, "claim_key")
        self._settle = script(client, "settle_key")

    def claim(self, key: str, call_id: str, digest: str) -> str:
        """Give the id of the call that the key belongs to: the caller's own if the claim succeeded.

        Raises:
            KeyReused: if the key belongs to a call with another payload.
        """
        held = self._claim(keys=[keys.idempotency(key)], args=[call_id, digest, CLAIM_TTL_S * 1000])
        if not held:
            return call_id
        holder, payload = (bytes(each).decode() for each in held)
        if payload != digest:
            raise KeyReused(key, holder)
        return holder

    def confirm(self, key: str, call_id: str) -> None:
        """Keep the claim for a day: the message is queued."""
        self._settle(keys=[keys.idempotency(key)], args=[call_id, keys.KEY_TTL_S * 1000])

    def release(self, key: str, call_id: str) -> None:
        """Give the claim up: the message was not queued."""
        self._settle(keys=[keys.idempotency(key)], args=[call_id, 0])

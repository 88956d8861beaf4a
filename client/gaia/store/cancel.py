"""Cancel marks: a key for calls that are still queued, an announcement for those that run."""

from collections.abc import Sequence

import redis

from gaia.store import keys


def request(client: redis.Redis, call_id: str) -> None:
    """Mark a call as cancelled and tell the workers. Repeating it changes nothing."""
    with client.pipeline(transaction=False) as pipe:
        pipe.set(keys.cancel(call_id), 1, ex=keys.CANCEL_TTL_S)
        pipe.publish(keys.CANCEL_CHANNEL, call_id)
        pipe.execute()


def requested(client: redis.Redis, call_ids: Sequence[str]) -> list[bool]:
    """Say for each call whether it is marked."""
    return [each is not None for each in client.mget([keys.cancel(each) for each in call_ids])] if call_ids else []

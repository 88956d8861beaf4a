"""How long an idempotency key leads to its call.

Claimed together with the call's queueing (`lua/submit.lua`), a key lives for a day past the call's deadline, however
long that is delayed. When the call has ended, it is left a day, as its result is: a key that outlived the result would
lead to a `Pending` that nobody answers.
"""

import math
import time

import redis

from gaia.store import keys
from gaia.store.scripts import script


def kept_s(deadline: float) -> int:
    """Give the seconds to keep a key whose call must have ended by `deadline`, seconds since the epoch."""
    return math.ceil(max(0.0, deadline - time.time())) + keys.KEY_TTL_S


def settle(client: "redis.Redis", key: str, call_id: str) -> bool:
    """Say that a key's call has ended, now; False if the key is not, or no longer, this call's.

    Raises:
        redis.RedisError: the key then lives as it was claimed, past its result.
    """
    return bool(script(client, "settle")(keys=[keys.idempotency(key)], args=[call_id, keys.KEY_TTL_S]))

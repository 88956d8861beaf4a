"""Dead letters: messages that no worker can perform, kept for people to look at."""

import time
from typing import Final

import redis

from gaia.store import keys

KEPT: Final = 10_000
"""About so many stay; the oldest go first."""

BODY_LIMIT_BYTES: Final = 64 * 1024
"""Of a message nobody can read, the beginning is enough to see where it came from."""


def park(client: redis.Redis, *, queue: str, reason: str, message: bytes) -> None:
    """Keep a message with the reason why it was not performed."""
    entry = {"queue": queue, "reason": reason, "at": f"{time.time():.3f}", "message": message[:BODY_LIMIT_BYTES]}
    client.xadd(keys.DEAD, entry, maxlen=KEPT, approximate=True)  # type: ignore[arg-type]  # its dict is invariant

"""Calls that wait in Redis for something on this worker, and are answered by it when it ends.

A call that gave its slot back (`Later`) comes back to the queue of this node, which nobody serves once the worker is
told to stop: its caller would hear `HolderLost` while what it is about still ends in order. So a worker that goes takes
such calls over first. They stay in Redis, in the name of the shared queue and past the worker's end: a worker that is
killed before it answers them leaves them to whoever fetches them then, who answers `HolderLost`.
"""

from collections.abc import Sequence
from typing import Any, Final

import redis

from gaia import codec, wire
from gaia.message import opened
from gaia.sticky import escape
from gaia.store import idempotency, keys, results
from gaia.store.scripts import script
from tasks.runtime import identity

MOST: Final = 1000
"""Calls taken over in one step; Redis serves nobody else meanwhile."""


class Entrusted:
    """Takes calls over, and answers them."""

    def __init__(
        self, broker: redis.Redis, stored: redis.Redis, bodies: codec.Blobs, keyed_bodies: codec.Blobs, *, keep_s: float
    ) -> None:
        """Use clients that answer soon. `keep_s` is how long a worker that goes may take to answer."""
        self._broker = broker
        self._results = stored
        self._bodies = bodies
        self._keyed_bodies = keyed_bodies
        self._keep_s = keep_s

    def take(self, queue: str, call_ids: Sequence[str]) -> int:
        """Take calls over that wait for this node, in the name of a shared queue; give how many were found.

        Only those of Gaia's own client are: Redis knows them by their ids.

        Raises:
            redis.RedisError
        """
        node = escape(identity.own().node)
        found = 0
        for first in range(0, len(call_ids), MOST):
            found += int(
                script(self._broker, "entrust")(
                    keys=[keys.DELAYED, keys.DELAYED_MESSAGES, keys.LATER + node],
                    args=[node, self._keep_s, queue, *call_ids[first : first + MOST]],
                )
            )
        return found

    def answer(self, call_id: str, result: object) -> bool:
        """End a call with its result, unless it has ended; False if it does not wait any more.

        The result first, the message second: twice changes nothing.

        Raises:
            redis.RedisError
        """
        entry: Any = self._broker.hget(keys.DELAYED_MESSAGES, call_id)
        if entry is None:
            return False
        headers, _ = opened(entry.partition(b"\n")[2])
        key = wire.key(headers.get(wire.HEADER))
        if not headers.get("ignore_result"):
            encoded = codec.encode(result, self._bodies if key is None else self._keyed_bodies)
            ttl_s = wire.RESULT_TTL_S if key is None else keys.KEY_TTL_S
            results.succeed(self._results, call_id, encoded, ttl_s=ttl_s)
        if key is not None:
            idempotency.settle(self._broker, key, call_id)
        script(self._broker, "withdraw")(keys=[keys.DELAYED, keys.DELAYED_MESSAGES], args=[call_id, entry])
        return True

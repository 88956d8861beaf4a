"""The queues as a whole: pausing, resuming, and how much waits.

The set of what is paused lies in Redis and is read by every fetch, so it holds for workers started later, too. What
runs already runs on.
"""

from dataclasses import dataclass
from typing import Any

import redis

from gaia import wire
from gaia.contracts.base import operations
from gaia.errors import InvalidCall
from gaia.store import keys
from gaia.store.connection import reaching
from gaia.store.scripts import script


@dataclass(frozen=True)
class Size:
    """How many messages a queue holds: `waiting` on its lists, by priority step in `by_priority`."""

    waiting: int
    by_priority: dict[int, int]
    paused: bool


class Queues:
    """`Gaia.queues`."""

    def __init__(self, client: "redis.Redis", url: str) -> None:
        """Use the broker's client; `url` is for errors."""
        self._client = client
        self._url = url

    def pause(self, name: str) -> None:
        """Start no more calls of a queue ("api") or an operation ("api.request"), in the whole cluster.

        Raises:
            InvalidCall: if the name is neither; it names those there are.
            Unreachable: if Redis did not answer.
        """
        _require_name(name)
        with reaching(self._url):
            self._client.sadd(keys.PAUSED, name)

    def resume(self, name: str) -> int:
        """Undo `pause`; give how many calls had been put aside and are queued again.

        Raises:
            InvalidCall: as `pause`, unless it is paused: another version may know it.
            Unreachable: as `pause`.
        """
        if name not in self.paused():
            _require_name(name)
        with reaching(self._url):
            return int(script(self._client, "resume")(keys=[keys.PAUSED, keys.aside(name)], args=[name]))

    def paused(self) -> set[str]:
        """Give the queues and operations that are paused."""
        with reaching(self._url):
            found: Any = self._client.smembers(keys.PAUSED)
            return {each.decode() for each in found}

    def sizes(self) -> dict[str, Size]:
        """Give how much waits, by queue. Delayed calls and those that run do not count."""
        with reaching(self._url), self._client.pipeline(transaction=False) as pipe:
            for queue in wire.QUEUES:
                for step in keys.PRIORITY_STEPS:
                    pipe.llen(keys.queue_list(queue, step))
            lengths = iter(pipe.execute())
        paused = self.paused()
        found = {}
        for queue in wire.QUEUES:
            by_priority = {step: int(next(lengths)) for step in keys.PRIORITY_STEPS}
            found[queue] = Size(sum(by_priority.values()), by_priority, queue in paused)
        return found

    def delayed(self) -> int:
        """Give how many calls wait for their time."""
        with reaching(self._url):
            return int(self._client.zcard(keys.DELAYED))


def _require_name(name: str) -> None:
    queue, dot, _ = name.partition(".")
    if queue not in wire.QUEUES:
        known = ", ".join(wire.QUEUES)
        raise InvalidCall("queues", "name", f"must be a queue ({known}) or an operation of one, got {name!r}")
    if dot and name not in operations(queue):
        known = ", ".join(operations(queue))
        raise InvalidCall("queues", "name", f"must be a queue or an operation ({known}), got {name!r}")

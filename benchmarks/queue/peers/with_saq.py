"""SAQ on Redis. A job without a result is deleted at its end, as elsewhere."""

from typing import Any

import bench
from saq import Queue

queue = Queue.from_url(bench.URL)
redis = bench.async_client()
TTL_S = 600 if bench.RESULTS else -1


async def empty(_: Any) -> int:
    """Do nothing."""
    return bench.count()


async def incr(_: Any) -> int:
    """Call Redis once."""
    await redis.incr(bench.COUNTER)
    return bench.count()


async def late(_: Any, *, sent: float) -> None:
    """Note the delay."""
    bench.late(sent)


settings = {"queue": queue, "functions": [empty, incr, late]}


def main() -> None:
    """Produce."""

    async def send(task: str, *arguments: Any) -> None:
        """Enqueue."""
        await queue.enqueue(task, ttl=TTL_S, **dict(zip(("sent",), arguments, strict=False)))

    bench.produce_async(send)

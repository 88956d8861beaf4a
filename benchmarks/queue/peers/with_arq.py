"""arq: max_jobs and poll_delay are raised for throughput, since its defaults start 200 jobs a second at most."""

from typing import Any

import bench
from arq import create_pool, func
from arq.connections import RedisSettings

SETTINGS = RedisSettings.from_dsn(bench.URL)
redis = bench.async_client()


async def empty(_: Any) -> int:
    """Do nothing."""
    return bench.count()


async def incr(_: Any) -> int:
    """Call Redis once."""
    await redis.incr(bench.COUNTER)
    return bench.count()


async def late(_: Any, sent: float) -> None:
    """Note the delay."""
    bench.late(sent)


class WorkerSettings:
    """What `arq` reads."""

    functions = tuple(func(each, keep_result=3600 if bench.RESULTS else 0) for each in (empty, incr, late))
    redis_settings = SETTINGS
    if bench.ROW not in {"late", "idle"}:
        max_jobs = 100
        poll_delay = 0.01


QUIET = {"version": 1}


def main() -> None:
    """Produce."""
    pool: list[Any] = []

    async def send(task: str, *arguments: Any) -> None:
        """Enqueue."""
        if not pool:
            pool.append(await create_pool(SETTINGS))
        await pool[0].enqueue_job(task, *arguments)

    bench.produce_async(send)

"""taskiq on taskiq-redis: a list (fastest; a killed worker loses tasks), or a stream if BENCH_STREAM is set."""

import os
from typing import Any

import bench
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

broker: Any = (RedisStreamBroker if os.environ.get("BENCH_STREAM") else ListQueueBroker)(bench.URL)
if bench.RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(bench.URL, result_ex_time=3600))
redis = bench.async_client()


@broker.task(task_name="empty")
async def empty() -> int:
    """Do nothing."""
    return bench.count()


@broker.task(task_name="incr")
async def incr() -> int:
    """Call Redis once."""
    await redis.incr(bench.COUNTER)
    return bench.count()


@broker.task(task_name="late")
async def late(sent: float) -> None:
    """Note the delay."""
    bench.late(sent)


def main() -> None:
    """Produce."""
    started: list[bool] = []

    async def send(task: str, *arguments: Any) -> None:
        """Enqueue."""
        if not started:
            await broker.startup()
            started.append(True)
        await globals()[task].kiq(*arguments)

    bench.produce_async(send)

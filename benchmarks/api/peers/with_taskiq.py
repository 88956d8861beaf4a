"""taskiq on a Redis list, its tasks on aiohttp: `main` queues so many."""

import asyncio
import os
import sys

import aiohttp
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

URL = os.environ["BENCH_REDIS_URL"]
broker = ListQueueBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=3600))
kept: list[aiohttp.ClientSession] = []


@broker.task(task_name="get")
async def get(url: str) -> str:
    """Send one request; all share a session without a bound of its own."""
    if not kept:
        kept.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    async with kept[0].get(url, raise_for_status=True) as answer:
        return await answer.text()


def main() -> None:
    """Queue so many."""

    async def produce() -> None:
        await broker.startup()
        for _ in range(int(sys.argv[2])):
            await get.kiq(sys.argv[1])
        await broker.shutdown()

    asyncio.run(produce())

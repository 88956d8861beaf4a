"""What every contender's task does, and how its producer is driven; the standard library and a Redis client, no more.

A worker counts the tasks it ran. At the first and the last of the counted span it writes a line with the time and the
CPU time of its process and of the supervisors above it, so that start and warm-up stay out of the figures.
"""

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

URL: Final = os.environ["BENCH_REDIS_URL"]
ROW: Final = os.environ.get("BENCH_ROW", "empty")
THREADS: Final = int(os.environ.get("BENCH_THREADS", "16"))
RESULTS: Final = ROW == "result"
EVENTS: Final = ROW == "events"
PRODUCES: Final = "BENCH_PRODUCES" in os.environ

COUNTER: Final = "bench:counter"
DAY_S: Final = 86_400
PAUSE_S: Final = (0.01, 0.03)
"""Between two submits of the latency row, drawn evenly."""

_FIRST: Final = int(os.environ.get("BENCH_FIRST", "0"))
_LAST: Final = int(os.environ.get("BENCH_LAST", "0"))
_MARKS: Final = Path(os.environ.get("BENCH_MARKS", os.devnull))
_TICKS: Final = os.sysconf("SC_CLK_TCK")

_number = itertools.count(1).__next__  # one bytecode call: no two threads get the same number
_delays: list[float] = []


def count() -> int:
    """Count a task that ran; give 1, the result where results are stored."""
    number = _number()
    if number in {_FIRST, _LAST}:
        mark(n=number)
    return 1


def late(sent: float) -> None:
    """Note how long a task waited from submit to start, both by the clock of this machine."""
    _delays.append(time.time() - sent)
    number = _number()
    if number in {1, _LAST}:
        mark(n=number, delays=_delays[_FIRST:])


def mark(**fields: Any) -> None:
    """Add a line to the marks, with the time and the CPU seconds so far."""
    line = json.dumps({**fields, "at": time.monotonic(), "cpu_s": time.process_time() + _supervisors_s()})
    with _MARKS.open("a", encoding="ascii") as marks:
        marks.write(line + "\n")


def client() -> Any:
    """Make the Redis client of the row whose tasks call Redis once."""
    import redis

    return redis.Redis.from_url(URL)


def async_client() -> Any:
    """Make the same for an event loop."""
    import redis.asyncio

    return redis.asyncio.Redis.from_url(URL)


def produce(send: Callable[..., object]) -> None:
    """Do what the command line asks: `send(task, *arguments)` so many times, and print what it cost."""
    asyncio.run(_produce(lambda *call: _done(send(*call))))


def produce_async(send: Callable[..., Awaitable[object]]) -> None:
    """Do the same with an asynchronous client."""
    asyncio.run(_produce(send))


async def _produce(send: Callable[..., Awaitable[object]]) -> None:
    task, times = sys.argv[1], int(sys.argv[2])
    if task == "late":
        for _ in range(times):
            await send("late", time.time())
            await asyncio.sleep(random.uniform(*PAUSE_S))  # noqa: S311 - jitter is no secret
        return
    await send(task)  # connects, and counts as a task of the warm-up
    wall, cpu = time.monotonic(), time.process_time()
    for _ in range(times - 1):
        await send(task)
    report(times - 1, time.monotonic() - wall, time.process_time() - cpu)


def report(times: int, wall_s: float, cpu_s: float) -> None:
    """Print what so many submits cost."""
    print(json.dumps({"n": times, "wall_s": wall_s, "cpu_s": cpu_s}))


async def _done(value: object) -> object:
    return value


def _supervisors_s() -> float:
    """Give the CPU seconds of the processes between this one and the benchmark."""
    top, pid, total = int(os.environ.get("BENCH_PID", "0")), os.getppid(), 0.0
    while pid not in {0, 1, top}:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / _TICKS
        pid = int(fields[1])
    return total

"""What watching costs: a metric a call, a snapshot of the counters, a scrape of the monitor, and growth.

`.venv/bin/python benchmarks/monitoring/run.py` takes about three minutes; `--short` half a minute, no figures.
"""

import argparse
import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "queue"), str(ROOT / "benchmarks" / "monitoring")]

import psutil  # noqa: E402 - behind the path
from environment import machine  # noqa: E402 - beside the queue's benchmark

from tasks import metrics  # noqa: E402 - behind the path
from tasks.api import health  # noqa: E402 - as above
from tasks.api.tally import Tally  # noqa: E402 - as above
from tasks.files.meter import Meter  # noqa: E402 - as above

ORIGINAL = "273 ns and 664 B before its pool of maps, 617 ns and 2393 B with it (a map of counters, in Go)"


class Still:
    """Stands for connections and engine, whose numbers a snapshot only reads."""

    active = waiting = 0

    @staticmethod
    def counts() -> tuple[int, int]:
        """Give no connections."""
        return 0, 0


def around_a_call() -> None:
    """Do what `tasks.wiring` does to the metrics around a call that succeeds."""
    meters = metrics.meters("api.request")
    meters.begin()
    meters.waited(0.003)
    meters.end("ok", 0.012)


def ns_of(work: Callable[[], object], calls: int) -> tuple[float, float]:
    """Give nanoseconds of wall and CPU time a call."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for _ in range(calls):
        work()
    return (time.perf_counter_ns() - wall) / calls, (time.process_time_ns() - cpu) / calls


def bytes_of(work: Callable[[], object], calls: int = 200) -> float:
    """Give the bytes that a call has allocated at once at most, the median of some."""
    found = []
    tracemalloc.start()
    try:
        for _ in range(calls):
            gc.collect(0)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            kept = work()
            found.append(tracemalloc.get_traced_memory()[1] - before)
            del kept
    finally:
        tracemalloc.stop()
    return statistics.median(found)


def growth_bytes(work: Callable[[], object], calls: int) -> tuple[int, int]:
    """Give by how much resident memory and traced memory grew over the second half of so many calls."""
    process = psutil.Process()
    for _ in range(calls // 2):
        work()
    gc.collect()
    tracemalloc.start()
    resident, traced = process.memory_info().rss, tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        work()
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - traced
    tracemalloc.stop()
    for _ in range(calls // 2):
        work()
    gc.collect()
    return process.memory_info().rss - resident, kept


def costs(rounds: int, scale: int) -> None:
    """Print what one call's metrics cost, and one snapshot."""
    tally, meter = Tally(), Meter(500)
    for number in range(2000):
        tally.started()
        tally.answered(200, 100, number / 1e4)
        meter.record("files.read", number / 1e4, ok=True, read_bytes=10)
    still = Still()
    works: dict[str, tuple[Callable[[], object], int]] = {
        "nothing (the loop of this measurement)": (lambda: None, 200_000),
        "the metrics around a call": (around_a_call, 100_000),
        "`api.stats`": (lambda: health.stats("api@host", tally, still, still), 2_000),  # type: ignore[arg-type]
        "`files.stats`": (lambda: meter.stats("files@host", ()), 2_000),
        "the exposition of a worker": (metrics.exposition, 20),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (work, calls) in works.items():
            found[name].append(ns_of(work, max(1, calls // scale)))
    print(f"\n{rounds} interleaved rounds, medians\n")
    print("| | µs | µs CPU | bytes allocated at once |\n|---|---|---|---|")
    for name, rows in found.items():
        wall, cpu = (statistics.median(column) / 1000 for column in zip(*rows, strict=True))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {bytes_of(works[name][0]):.0f} |", flush=True)
    print(f"\nThe original's snapshot: {ORIGINAL}.")


def growth(calls: int) -> None:
    """Print what a million calls leave behind."""
    tally, still = Tally(), Still()
    print(f"\n| {calls} times | resident bytes more, second half | bytes kept by 1000 calls |\n|---|---|---|")
    for name, work in {
        "the metrics around a call": around_a_call,
        "`api.stats`": lambda: health.stats("api@host", tally, still, still),  # type: ignore[arg-type]
    }.items():
        resident, kept = growth_bytes(work, calls)
        print(f"| {name} | {resident} | {kept} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a trial: does it run?")
    short = parser.parse_args().short
    print(machine())
    costs(rounds=2 if short else 9, scale=10 if short else 1)
    growth(10_000 if short else 1_000_000)


if __name__ == "__main__":
    main()

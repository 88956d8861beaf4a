"""What watching costs: a metric a call, a snapshot of the counters, a scrape of the monitor, and growth.

`.venv/bin/python benchmarks/monitoring/run.py` takes about three minutes; `--short` half a minute, no figures.
"""

import argparse
import gc
import json
import statistics
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "queue"), str(ROOT / "benchmarks" / "monitoring")]

import psutil  # noqa: E402 - behind the path
import redis  # noqa: E402 - as above
from environment import machine  # noqa: E402 - beside the queue's benchmark
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest  # noqa: E402 - behind the path

from gaia import codec  # noqa: E402 - behind the path
from gaia.store.artifacts import Keeping  # noqa: E402 - as above
from tasks import metrics  # noqa: E402 - behind the path
from tasks.api import health  # noqa: E402 - as above
from tasks.api.tally import Tally  # noqa: E402 - as above
from tasks.files.meter import Meter  # noqa: E402 - as above
from tasks.monitor.calls import RUN_BOUNDS, STATES, WAIT_BOUNDS, Calls  # noqa: E402 - as above
from tasks.monitor.series import Book  # noqa: E402 - as above
from tasks.profiling.sampling import sample  # noqa: E402 - as above
from tasks.profiling.waits import waits  # noqa: E402 - as above
from tasks.runtime.pages import Page, Server  # noqa: E402 - as above
from tasks.runtime.weighing import Weighed  # noqa: E402 - as above

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
    used = time.thread_time()
    meters.begin(300)
    meters.waited(0.003)
    meters.end("ok", 0.012, time.thread_time() - used, 400)


BLOBS: codec.Blobs = Keeping().store(redis.Redis())
WEIGHED = Weighed(BLOBS, "api.request")
"""Nothing is dialled: the sessions below hold no large body."""


def weighed() -> None:
    """Make what weighs the large bodies of a message and of a result, over what would be made anyway."""
    WEIGHED.session()
    WEIGHED.session()


def unweighed() -> None:
    """Make what is made anyway."""
    BLOBS.session()
    BLOBS.session()


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
        "two sessions for large bodies, weighed": (weighed, 100_000),
        "the same, not weighed": (unweighed, 100_000),
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


WORKERS = 50
OPERATIONS = (
    "api.request", "api.request_many", "files.read", "files.write", "files.list", "process.run", "network.resolve",
    "browser.capture",
)  # fmt: skip


def fill(book: Book, calls: Calls) -> int:
    """Have fifty workers run eight operations each, some with failures; give the number of series lines."""
    with book.lock:
        for number in range(WORKERS):
            worker = f"worker-{number}@host-{number % 10}"
            calls.hear({"type": "worker-heartbeat", "hostname": worker, "active": 3})
            for name in OPERATIONS:
                run(calls, worker, name, 3)
    return book.text().count(b"\n")


def run(calls: Calls, worker: str, name: str, times: int) -> None:
    """Have a worker run an operation so often; the last run fails."""
    for each in range(times):
        common = {"uuid": f"{worker}{name}{each}", "hostname": worker, "timestamp": 100.0}
        calls.hear({"type": "task-received", "name": name, **common})
        calls.hear({"type": "task-started", "waited": 0.01, **common})
        if each < times - 1:
            calls.hear({"type": "task-succeeded", "runtime": 0.02 * each, **common})
        else:
            calls.hear({"type": "task-failed", "exception": "TimedOut('x')", **common})


def theirs() -> CollectorRegistry:
    """Give the same series as prometheus_client holds them."""
    registry = CollectorRegistry()
    labels = ["name", "hostname", "worker", "queue_name"]
    counters = [Counter(f"celery_task_{state}", "A count.", labels, registry=registry) for state in STATES]
    spreads = [
        Histogram("celery_task_runtime", "Seconds.", [*labels, "outcome"], buckets=RUN_BOUNDS, registry=registry),
        Histogram("celery_task_queue_wait_time", "Seconds.", labels, buckets=WAIT_BOUNDS, registry=registry),
    ]
    for number in range(WORKERS):
        for name in OPERATIONS:
            values = (name, f"host-{number % 10}", f"worker-{number}@host-{number % 10}", name.partition(".")[0])
            for each in counters:
                each.labels(*values).inc()
            for outcome in ("succeeded", "failed"):
                spreads[0].labels(*values, outcome).observe(0.02)
            spreads[1].labels(*values).observe(0.01)
    return registry


def scrapes(rounds: int) -> None:
    """Print what a scrape of fifty workers takes over HTTP, and how many events a second are taken in."""
    book = Book()
    calls = Calls(book)
    lines = fill(book, calls)
    registry = theirs()
    server = Server("127.0.0.1", 0, lambda _: Page(book.text()))
    peer = Server("127.0.0.1", 0, lambda _: Page(generate_latest(registry)))
    server.start()
    peer.start()

    def change() -> None:
        with book.lock:
            for number in range(WORKERS):
                for name in OPERATIONS:
                    run(calls, f"worker-{number}@host-{number % 10}", name, 2)

    def ask(port: int) -> tuple[float, float]:
        began, used = time.perf_counter(), time.process_time()
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
            reply.read()
        return (time.perf_counter() - began) * 1000, (time.process_time() - used) * 1000

    found: dict[str, list[tuple[float, float]]] = {
        "nothing has changed": [],
        "every series has changed": [],
        "prometheus_client": [],
    }
    for _ in range(rounds):
        change()
        found["every series has changed"].append(ask(server.port))
        found["nothing has changed"].append(ask(server.port))
        found["prometheus_client"].append(ask(peer.port))
    server.close()
    peer.close()
    print(f"\nA scrape of {WORKERS} workers, {len(OPERATIONS)} operations each, {lines} lines; {rounds} rounds\n")
    print("| | ms | ms, most | ms CPU of both ends |\n|---|---|---|---|")
    for name, times in found.items():
        wall, cpu = zip(*times, strict=True)
        print(f"| {name} | {statistics.median(wall):.1f} | {max(wall):.1f} | {statistics.median(cpu):.1f} |")
    began = time.perf_counter()
    change()
    events = WORKERS * len(OPERATIONS) * 2 * 3
    print(f"\nEvents taken in: {events / (time.perf_counter() - began):.0f} a second.")


def profiles(rounds: int, seconds: float) -> None:
    """Print what a profile costs the process that it is taken of: work done in the same time, with and without."""
    ended = threading.Event()
    idle = [threading.Thread(target=ended.wait, daemon=True) for _ in range(16)]
    for each in idle:
        each.start()

    def work() -> float:
        count, ends_at = 0, time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            json.loads(json.dumps({"a": [1, 2, 3], "b": {"c": "d" * 50}}))
            count += 1
        return count

    def profiled(take: Callable[[float], object]) -> float:
        taker = threading.Thread(target=take, args=(seconds,))
        taker.start()
        found = work()
        taker.join()
        return found

    ways: dict[str, Callable[[], float]] = {
        "without": work,
        "CPU profile": lambda: profiled(sample),
        "waits": lambda: profiled(waits),
    }
    per_cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, take in ways.items():
            began = time.process_time()
            per_cpu[name].append(take() / (time.process_time() - began))
    ended.set()
    print(f"\nProfiles of 18 threads; {rounds} rounds of {seconds:g} s\n")
    print("| | pieces of work a second of the process's CPU | what it takes from the work, % |\n|---|---|---|")
    for name, found in per_cpu.items():
        pairs = sorted(100 - 100 * b / a for a, b in zip(per_cpu["without"], found, strict=True))
        spread = f"{statistics.median(pairs):.1f} ({pairs[0]:.1f} to {pairs[-1]:.1f})"
        print(f"| {name} | {statistics.median(found):.0f} | {spread} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a trial: does it run?")
    short = parser.parse_args().short
    print(machine())
    costs(rounds=2 if short else 9, scale=10 if short else 1)
    scrapes(rounds=5 if short else 50)
    profiles(rounds=2 if short else 9, seconds=1.0 if short else 3.0)
    growth(10_000 if short else 1_000_000)


if __name__ == "__main__":
    main()

"""The network coordinator beside its peers: names, bandwidth, connections.

`.venv/bin/python benchmarks/network/run.py` takes about two minutes; `--short` half a minute, no figures.
"""

import argparse
import bisect
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.resolver
import redis

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "queue"), str(HERE)]

from environment import machine, server  # noqa: E402 - beside the queue's benchmark
from holder import HOST, TTL_S  # noqa: E402
from mover import CHUNK  # noqa: E402

from config import settings  # noqa: E402
from gaia import Gaia  # noqa: E402
from gaia.contracts import network  # noqa: E402
from tasks.egress.gateway import Gateway  # noqa: E402
from tasks.egress.judge import Judge  # noqa: E402
from tasks.egress.resolver import Resolver  # noqa: E402
from tasks.limits.cluster import Limits  # noqa: E402
from tasks.network.service import NetworkService  # noqa: E402
from tasks.scope import Scope  # noqa: E402

PROCESSES = 8
CONTENDERS = (
    "resolve_many, this process alone",
    "resolve_many, shared with the cluster",
    "resolve_many, all known to the cluster",
    "dnspython",
)


@contextmanager
def name_server() -> Iterator[str]:
    """Run the server; give its address."""
    argv = [sys.executable, str(HERE / "answering.py")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@contextmanager
def service(url: str, address: str, entries: int, *, shared: bool) -> Iterator[NetworkService]:
    """Make the service as a worker does."""
    resolver = Resolver([address], entries, commons_url=url if shared else None, hosts=Path("/dev/null"))
    limits = Limits.in_redis(url, settings.Limits())
    found = NetworkService(
        gateway=Gateway(Judge(), resolver), limits=limits, ports=("53",), ca_file="", worker="bench", capacity=entries
    )
    try:
        yield found
    finally:
        found.close()
        limits.close()


def measured(act: Callable[[], Any]) -> tuple[float, float]:
    """Give wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def row(name: str, walls: list[float], cpus: list[float], number: int) -> None:
    """Print names a second, by the clock and by CPU: median, least and most."""
    by_wall, by_cpu = (sorted(number / each for each in taken) for taken in (walls, cpus))
    shown = [f"{statistics.median(each):,.0f} ({each[0]:,.0f} to {each[-1]:,.0f})" for each in (by_wall, by_cpu)]
    print(f"| {name} | {shown[0]} | {shown[1]} |", flush=True)


def cached(url: str, address: str, rounds: int, number: int) -> None:
    """Look 500 names up again and again: the service, and dnspython's own cache."""
    names = [f"h{each}.example.com" for each in range(500)]
    calls = [network.Resolve(each) for each in names]
    scope = Scope.lasting(3600)
    host, port = address.split(":")
    peer = dns.resolver.Resolver(configure=False)
    peer.nameservers, peer.port, peer.cache = [host], int(port), dns.resolver.LRUCache(1000)
    with service(url, address, 1000, shared=True) as ours:
        for each in calls:
            ours.resolve(each, scope)

        def gaia() -> None:
            for each in itertools.islice(itertools.cycle(calls), number):
                ours.resolve(each, scope)

        def dnspython() -> None:
            for each in itertools.islice(itertools.cycle(names), number // 20):
                peer.resolve(each, "A", search=False)

        dnspython()
        taken: dict[str, list[tuple[float, float]]] = {"gaia": [], "dnspython": []}
        for _ in range(rounds):
            for act in (gaia, dnspython):
                taken[act.__name__].append(measured(act))
        stats = ours.stats(network.Stats(), scope)
    print("\ncached look-ups through `service.resolve`, 500 names\n\n| | a second | a CPU-second |\n|---|---|---|")
    for name, each in taken.items():
        row(name, *map(list, zip(*each, strict=True)), number // 20 if name == "dnspython" else number)
    print(f"\nhit ratio of Gaia's cache over the run: {stats.hit_ratio:.6f}; {stats.asked} questions to the server")


def bulk(url: str, address: str, rounds: int, number: int) -> None:
    """Look names up that nobody knows: all at once, with and without the cluster's cache, and one after the other."""
    fresh = itertools.count()
    taken: dict[str, list[tuple[float, float]]] = {}
    host, port = address.split(":")
    peer = dns.resolver.Resolver(configure=False)
    peer.nameservers, peer.port = [host], int(port)
    for _ in range(rounds):
        for name in CONTENDERS:
            serial = next(fresh)
            asked = number if name != "dnspython" else number // 10
            names = tuple(f"h{each}.r{serial}.example.com" for each in range(asked))
            with service(url, address, number, shared="cluster" in name) as ours:
                call = network.ResolveMany(names)
                if "all known" in name:
                    with service(url, address, number, shared=True) as other:
                        other.resolve_many(call, Scope.lasting(60))
                ours.resolve(network.Resolve("warm.example.com"), Scope.lasting(60))
                ours.resolve_many(network.ResolveMany(("warm2.example.com",)), Scope.lasting(60))
                found: list[network.Resolutions] = []

                def ask() -> None:
                    found.append(ours.resolve_many(call, Scope.lasting(60)))  # noqa: B023 - called in this turn

                def one_by_one() -> None:
                    for each in names:  # noqa: B023 - called in this turn
                        peer.resolve(each, "A", search=False)

                taken.setdefault(name, []).append(measured(one_by_one if name == "dnspython" else ask))
                if found and not all(each.ok for each in found[0].items):
                    raise SystemExit(f"{sum(not each.ok for each in found[0].items)} names failed")
    print(f"\n{number} names that nobody knows yet\n\n| | names/s | names/CPU-s |\n|---|---|---|")
    for name, each in taken.items():
        row(name, *map(list, zip(*each, strict=True)), number // 10 if name == "dnspython" else number)


def together(script: str, url: str, files: list[Path], *args: str) -> tuple[list[Any], float]:
    """Start a process for each file; give them, and when they begin."""
    argv = [sys.executable, str(HERE / script), url]
    running: list[Any] = [
        subprocess.Popen([*argv, each, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in files
    ]
    for each in running:
        each.stdout.readline()
    begin = time.monotonic() + 0.5
    for each in running:
        each.stdin.write(f"{begin}\n")
        each.stdin.flush()
    return running, begin


def throttle(client: "redis.Redis", url: str, rate: float, seconds: float) -> None:
    """Eight processes move what they can of one bandwidth."""
    client.flushall()
    with Gaia(url) as gaia, tempfile.TemporaryDirectory() as directory:
        gaia.limits.set("files.example.com", bytes_per_s=rate)
        files = [Path(directory) / str(number) for number in range(PROCESSES)]
        running, begin = together("mover.py", url, files, str(seconds + 2))
        client.config_resetstat()
        for each in running:
            each.communicate(timeout=seconds * 2 + 60)
        reads = int(client.info("stats")["total_reads_processed"])
        moved = sorted(chunk for each in files for chunk in CHUNK.iter_unpack(each.read_bytes()))
    times, sums = [at for at, _ in moved], [0.0, *itertools.accumulate(size for _, size in moved)]

    def within(start: float, length: float) -> float:
        return sums[bisect.bisect_right(times, start + length)] - sums[bisect.bisect_right(times, start)]

    def off(length: float) -> str:
        starts = [begin + 0.5 + step * 0.01 for step in range(int((seconds + 1 - length) * 100))]
        found = [within(each, length) / (rate * length) - 1 for each in starts]
        return f"{min(found):+.2%} to {max(found):+.2%}"

    windows = f"over any {seconds:g} s {off(seconds)}, over any 1 s {off(1.0)}"
    largest_ms = max(size for _, size in moved) / rate * 1000
    print(
        f"\n8 processes at {rate / 1e6:g} MB/s: {windows}; round trips to Redis a MiB: "
        f"{reads / (sums[-1] / 2**20):.1f}; largest chunk {largest_ms:.0f} ms of the rate",
        flush=True,
    )


def connections(client: "redis.Redis", url: str, limit: int, attempts: int) -> None:
    """Eight processes want more connections than there are; one is killed half-way."""
    client.flushall()
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / str(number) for number in range(PROCESSES)]
        running, _ = together("holder.py", url, files, str(limit), str(attempts // PROCESSES))
        while not files[3].exists() or len(files[3].read_text().splitlines()) < attempts // PROCESSES // 2:
            time.sleep(0.005)
        running[3].kill()
        killed_at = time.monotonic()
        for each in running:
            each.communicate(timeout=120)
        level = f"{{gaia:limits}}:slots:slots:{HOST}"
        while client.zcount(level, time.time() * 1e6, "+inf"):
            time.sleep(0.02)
        free_s = time.monotonic() - killed_at
        lines = [line.split() for each in files for line in each.read_text().splitlines()]
    given = {parts[1]: float(parts[2]) for parts in lines if parts[0] == "+"}
    back = {parts[1]: float(parts[2]) for parts in lines if parts[0] == "-"}
    # What the killed process held counts until its time was over.
    steps = sorted(
        [(at, 1) for at in given.values()] + [(back.get(name, at + TTL_S), -1) for name, at in given.items()]
    )
    most = max(itertools.accumulate(step for _, step in steps))
    refused = sum(parts[0] == "x" for parts in lines)
    print(
        f"\n8 processes, limit {limit}, {len(given) + refused} attempts, one killed: {len(given)} given, "
        f"{refused} refused, at most {most} at once; the killed one's {len(given) - len(back)} slots were free "
        f"{free_s:.2f} s after it (time to live {TTL_S:g} s)"
    )


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one round, short; no figures")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rounds = 1 if given.short else given.rounds
    print(json.dumps(machine()))
    with (
        tempfile.TemporaryDirectory() as directory,
        server(Path(directory)) as url,
        redis.Redis.from_url(url) as client,
        name_server() as address,
    ):
        cached(url, address, rounds, 100_000 if given.short else 1_000_000)
        bulk(url, address, rounds, 2000 if given.short else 10_000)
        for rate in (1e7,) if given.short else (1e6, 1e7, 1e8):
            throttle(client, url, rate, 3 if given.short else 10)
        connections(client, url, 50, 1200)


if __name__ == "__main__":
    main()

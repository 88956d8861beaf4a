"""Limits beside their peers: Redis calls and CPU a request, and what eight processes get together.

`.venv/bin/python benchmarks/limits/run.py` takes about six minutes; `--short` one, no figures.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "queue")]

from environment import machine, server, venvs  # noqa: E402 - beside the queue's benchmark

from gaia import Gaia  # noqa: E402
from tests.support.limits_cluster import admissions, hammering, kill, over_since  # noqa: E402
from tests.support.limits_process import HOST  # noqa: E402

PEERS = {"limits_fixed", "pyrate", "pybreaker"}
RATES = ["nothing", "gaia", "gaia_exact", "limits_fixed", "pyrate", "gaia_breaker", "pybreaker"]


def calls(client: "redis.Redis") -> int:
    """Give how often the server has read from a socket: a round trip each, whatever a script does inside."""
    stats: Any = client.info("stats")
    return int(stats["total_reads_processed"])


@contextmanager
def contender(name: str, url: str, seconds: float, rate: int) -> Iterator["subprocess.Popen[str]"]:
    """Start a contender; it waits after its warm-up."""
    python = ROOT / ".venv-bench-limits" / "bin" / "python" if name in PEERS else Path(sys.executable)
    argv = [str(python), str(ROOT / "benchmarks" / "limits" / "peers.py"), name, url, str(seconds), str(rate)]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{name} did not start")
        yield process
    finally:
        process.communicate("\n", timeout=30)


def measure(name: str, client: "redis.Redis", url: str, seconds: float, rate: int) -> dict[str, float]:
    """Give calls and CPU an ask, and asks a second."""
    client.flushall()
    with contender(name, url, seconds, rate) as process:
        before = calls(client)
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        process.stdin.write("\n")
        process.stdin.flush()
        found = json.loads(process.stdout.readline())
        sent = calls(client) - before - 1
    asked = found["asked"]
    return {"calls": sent / asked, "cpu_us": found["cpu_s"] / asked * 1e6, "per_s": asked / seconds}


def table(client: "redis.Redis", url: str, rounds: int, seconds: float, rate: int) -> None:
    """Print a row a contender; rounds are interleaved."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RATES}
    for _ in range(rounds):
        for name in RATES:
            found[name].append(measure(name, client, url, seconds, rate))
    print(f"\n{'paced, ' + str(rate) + '/s' if rate else 'without pause'}, {rounds} rounds of {seconds:g} s\n")
    print("| contender | Redis calls a request | µs CPU a request (least to most) | requests/s |\n|---|---|---|---|")
    for name, rows in found.items():
        cpu = sorted(each["cpu_us"] for each in rows)
        middle = {key: statistics.median(each[key] for each in rows) for key in rows[0]}
        spread = f"{statistics.median(cpu):.1f} ({cpu[0]:.1f} to {cpu[-1]:.1f})"
        print(f"| {name} | {middle['calls']:.4f} | {spread} | {middle['per_s']:.0f} |", flush=True)


def together(client: "redis.Redis", url: str, rate: int, burst: int, seconds: float) -> None:
    """Eight processes at one host, one killed half-way: what they were given, and what that cost."""
    client.flushall()
    with Gaia(url) as gaia, tempfile.TemporaryDirectory() as directory:
        gaia.limits.set(HOST, rate_per_s=rate, burst=burst)
        client.config_resetstat()
        with hammering("rate", url, Path(directory), seconds) as running:
            try:
                running[3].wait(seconds / 2 + 1)
            except subprocess.TimeoutExpired:
                kill(running[3])
            for each in running:
                each.wait(seconds * 3 + 30)
        start, times = admissions(Path(directory))
        scripts: Any = client.info("commandstats")
    took, over = times[-1] - start, over_since(start, times, rate, burst)
    sent = sum(int(scripts.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "hget", "hgetall"))
    print(
        f"\n8 processes at {rate}/s, burst {burst}, one killed: {len(times)} admissions in {took:.2f} s, "
        f"bound {rate * took + burst:.0f}; most above the bound at any moment: {over:.1f}; "
        f"Redis calls an admission: {sent / len(times):.4f}"
    )


def probes(client: "redis.Redis", url: str, open_s: float, seconds: float) -> None:
    """Eight processes at a dead host: how many probes in each half-open window."""
    client.flushall()
    with Gaia(url) as gaia, tempfile.TemporaryDirectory() as directory:
        gaia.limits.set(HOST, open_s=open_s)
        with hammering("probes", url, Path(directory), seconds) as running:
            for each in running:
                each.wait(seconds * 3 + 30)
        lines = [line.split(" ") for each in Path(directory).iterdir() for line in each.read_text().splitlines()]
    times = sorted(float(at) for at, probe in lines if probe)
    windows = sum(1 for early, late in zip([0.0, *times], times, strict=False) if late - early > open_s / 2)
    print(f"\n8 processes at a dead host, open for {open_s:g} s: {len(times)} probes in {windows} half-open windows")


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one round, short; no figures")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rounds, seconds = (1, 1.0) if given.short else (given.rounds, 3.0)
    venvs("-limits")
    print(json.dumps(machine()))
    with (
        tempfile.TemporaryDirectory() as directory,
        server(Path(directory)) as url,
        redis.Redis.from_url(url) as client,
    ):
        together(client, url, 1000, 1000, 2 if given.short else 10)
        probes(client, url, 1.0, 3 if given.short else 10)
        table(client, url, rounds, seconds, 1000)
        table(client, url, rounds, seconds, 0)


if __name__ == "__main__":
    main()

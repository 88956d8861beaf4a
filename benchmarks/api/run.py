"""The api queue beside its peers, over a server on loopback that answers after 50 ms with 1 KiB and counts.

    .venv/bin/python benchmarks/api/run.py [--only server,engines,many,single,calls] [--rounds N] [--short]

`server`: what the server is able to answer, to bare sockets. `engines`: libcurl's multi interface, which the bulk
engine is, beside aiohttp, without a queue. `many` and `single`: through the queue end to end, one worker process.
`calls`: Redis calls a request for limits. Contenders take turns within each round; a cell is the median, from the
least to the most. Nothing is asserted, but an answer that is missing or wrong ends the run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import redis

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "queue")]

from environment import machine, server, venvs  # noqa: E402 - beside the queue's benchmark

from gaia import Gaia  # noqa: E402
from gaia.contracts import api  # noqa: E402
from gaia.store import keys  # noqa: E402
from tests.support import cluster  # noqa: E402

PAUSE_S: Final = 0.05
AT_ONCE: Final = 1000
THREADS: Final = 100
KEY: Final = "bench"
STUCK_S: Final = 120.0
LOOK_S: Final = 0.005

Figures = dict[str, float]


class Site:
    """The server, in a process of its own."""

    def __init__(self, port: int) -> None:
        """Speak with the one on this port."""
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    def ask(self, what: str) -> dict[str, float]:
        """Ask for counts: `told`, `reset`, `until?N`."""
        with urllib.request.urlopen(self.url + what, timeout=STUCK_S) as answer:  # noqa: S310 - http, of our own
            found: dict[str, float] = json.loads(answer.read())
        return found


@contextmanager
def site(pause_s: float = PAUSE_S) -> Iterator[Site]:
    """Run the server."""
    argv = [sys.executable, str(HERE / "server.py"), str(pause_s)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            yield Site(int(process.stdout.readline()))
        finally:
            process.kill()


# --- without a queue


def python_of(name: str) -> str:
    """Give the Python that has what an engine or a peer imports."""
    theirs = name.startswith(("aiohttp", "with_dramatiq", "with_taskiq"))
    return str(ROOT / ".venv-bench-api" / "bin" / "python") if theirs else sys.executable


def engine(name: str, place: Site, times: int) -> Figures:
    """Measure an engine."""
    place.ask("reset")
    argv = [python_of(name), str(HERE / "engines.py"), name, place.url, str(times), str(AT_ONCE)]
    environ = {**cluster.clean_environ(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found, told = json.loads(done.stdout), place.ask("told")
    return {
        "per_s": times / found["wall_s"],
        "cpu_us": found["cpu_s"] / times * 1e6,
        "server_us": told["cpu_s"] / told["asked"] * 1e6,
        "at_once": told["most_at_once"],
    }


# --- through the queue


@dataclass
class Place:
    """What a measurement stands on."""

    redis_url: str
    site: Site
    directory: Path

    @contextmanager
    def gaia_worker(self, threads: int) -> Iterator[int]:
        """Run one worker process of the api queue; give its process id."""
        environ = {
            "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{self.site.port}"]),
            "GAIA_WORKER__CONCURRENCY": str(threads),
            "GAIA_WORKER__LOG_LEVEL": "WARNING",
        }
        argv = [str(Path(sys.executable).with_name("gaia")), "worker", "api"]
        with self._process(argv, {"GAIA_REDIS_URL": self.redis_url, **environ}, ROOT) as number:
            yield number

    @contextmanager
    def peer_worker(self, script: str, *arguments: str) -> Iterator[int]:
        """Run a peer's worker."""
        environ = {"BENCH_REDIS_URL": self.redis_url, "PYTHONWARNINGS": "ignore"}
        with self._process([python_of(script), *arguments], environ, HERE / "peers") as number:
            yield number

    @contextmanager
    def _process(self, argv: list[str], environ: dict[str, str], cwd: Path) -> Iterator[int]:
        log = self.directory / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, cwd=cwd, env={**cluster.clean_environ(), **environ}, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield process.pid
        finally:
            cluster.stop(process)

    def produce(self, script: str, times: int) -> None:
        """Have a peer's own producer fill its queue."""
        start = f"import {script} as peer; peer.main()"  # by name: tasks of __main__ are no worker's
        argv = [python_of(script), "-c", start, self.site.url, str(times)]
        environ = {**cluster.clean_environ(), "BENCH_REDIS_URL": self.redis_url, "PYTHONWARNINGS": "ignore"}
        subprocess.run(argv, cwd=HERE / "peers", env=environ, check=True, stdout=subprocess.DEVNULL)


def cpu_s(pid: int) -> float:
    """Give the CPU seconds of a process and of its children."""
    found = 0.0
    for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        times = each.cpu_times()
        found += times.user + times.system
    return found


def worked_off(place: Place, pid: int, warm_up: int, total: int, stored: Callable[[], bool]) -> Figures:
    """Give what the requests behind the warm-up cost, until all results are stored."""
    place.site.ask(f"until?{warm_up}")
    began, used = time.monotonic(), cpu_s(pid)
    place.site.ask(f"until?{total}")
    ends_at = time.monotonic() + STUCK_S
    while not stored():
        if time.monotonic() > ends_at:
            raise SystemExit(f"results are missing; see {place.directory / 'worker.log'}")
        time.sleep(LOOK_S)
    took, cost, told = time.monotonic() - began, cpu_s(pid) - used, place.site.ask("told")
    if told["asked"] != total:
        raise SystemExit(f"{told['asked']:.0f} requests instead of {total}")
    times = total - warm_up
    return {
        "per_s": times / took,
        "cpu_us": cost / times * 1e6,
        "server_us": told["cpu_s"] / total * 1e6,
        "at_once": told["most_at_once"],
    }


def set_limits(gaia: Gaia) -> None:
    """Turn every limit on, wide enough never to bind: rates, slots and bytes of the cluster, the host and the key."""
    gaia.limits.set("pool:connections", concurrency=10_000)
    for name in ("global", "127.0.0.1", f"key:{KEY}"):
        gaia.limits.set(
            name, rate_per_s=100_000, burst=100_000, concurrency=10_000, bytes_per_s=10**10, burst_bytes=10**9
        )


def request(place: Place) -> api.Request:
    """Give the call."""
    return api.Request(url=place.site.url, tenant=KEY)


def gaia_many(place: Place, times: int) -> Figures:
    """Messages of 1000 requests, 1000 at once; the first two are the warm-up."""
    batches, warm_up = max(1, times // AT_ONCE), 2
    call = api.RequestMany((request(place),) * AT_ONCE, concurrency=AT_ONCE)
    with Gaia(place.redis_url) as gaia, redis.Redis.from_url(place.redis_url) as client:
        set_limits(gaia)
        pendings = [gaia.submit(call) for _ in range(batches + warm_up)]
        names = [keys.result(each.id) for each in pendings]
        with place.gaia_worker(3) as pid:
            total = len(pendings) * AT_ONCE
            found = worked_off(place, pid, warm_up * AT_ONCE, total, lambda: int(client.exists(*names)) == len(names))
            for each in pendings:
                _check(each.get(timeout=60))
    return found


def _check(found: api.Outcomes) -> None:
    for each in found.items:
        if each.result is None or each.result.status != 200 or len(each.result.body) != 1024:  # noqa: PLR2004
            raise SystemExit(f"no answer: {each.error}")


def gaia_single(place: Place, times: int) -> Figures:
    """One request a message."""
    warm_up = times // 10
    with Gaia(place.redis_url) as gaia, redis.Redis.from_url(place.redis_url) as client:
        set_limits(gaia)
        pendings = [each.unwrap() for each in gaia.submit_many([request(place)] * (times + warm_up))]
        names = [keys.result(each.id) for each in pendings]
        with place.gaia_worker(THREADS) as pid:
            found = worked_off(place, pid, warm_up, len(names), lambda: int(client.exists(*names)) == len(names))
            for each in pendings[:: max(1, len(pendings) // 100)]:
                if len(each.get(timeout=60).body) != 1024:  # noqa: PLR2004
                    raise SystemExit("no answer")
    return found


def peer(script: str, *arguments: str) -> Callable[[Place, int], Figures]:
    """Give the measurement of a peer."""

    def measure(place: Place, times: int) -> Figures:
        warm_up = times // 10
        place.produce(script, times + warm_up)
        with redis.Redis.from_url(place.redis_url) as client, place.peer_worker(script, *arguments) as pid:
            # A result is a key with each of them; the few other keys do not count at this size.
            return worked_off(place, pid, warm_up, times + warm_up, lambda: int(client.dbsize()) >= times + warm_up)

    return measure


CELERY: Final = ("-m", "celery", "-A", "with_celery", "worker", "-P", "threads", "-c", str(THREADS), "-l", "WARNING")
DRAMATIQ: Final = ("-m", "dramatiq", "with_dramatiq", "--processes", "1", "--threads", str(THREADS))
TASKIQ: Final = ("-m", "taskiq", "worker", "with_taskiq:broker", "--workers", "1", "--log-level", "WARNING")

MANY: Final[dict[str, Callable[[Place, int], Figures]]] = {"api.request_many": gaia_many}
SINGLE: Final[dict[str, Callable[[Place, int], Figures]]] = {
    "api.request": gaia_single,
    "Celery + requests": peer("with_celery", *CELERY),
    "dramatiq + requests": peer("with_dramatiq", *DRAMATIQ),
    "taskiq + aiohttp": peer("with_taskiq", *TASKIQ, "--max-async-tasks", str(AT_ONCE), "--max-prefetch", "100"),
}


def fresh(place: Place, measure: Callable[[Place, int], Figures], times: int) -> Figures:
    """Measure on an empty server of Redis, with the counts at zero."""
    with redis.Redis.from_url(place.redis_url) as client:
        client.flushall()
    place.site.ask("reset")
    return measure(place, times)


# --- Redis calls of limits


def calls(place: Place, seconds: float) -> dict[str, Figures]:
    """Pace 1000 requests a second at one host, in one process without a queue: all that Redis hears is of limits."""
    found = {}
    for name in ("single", "many"):
        with redis.Redis.from_url(place.redis_url) as client, Gaia(place.redis_url) as gaia:
            client.flushall()
            set_limits(gaia)
            gaia.limits.set("127.0.0.1", rate_per_s=1000, burst=1000)
            argv = [sys.executable, str(HERE / "paced.py"), name, place.redis_url, place.site.url, str(seconds)]
            environ = {**cluster.clean_environ(), "PYTHONPATH": str(ROOT)}
            with subprocess.Popen(
                argv, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout is not None  # noqa: S101
                assert process.stdin is not None  # noqa: S101
                if process.stdout.readline() != "ready\n":
                    raise SystemExit("the paced process did not start")
                client.config_resetstat()
                process.stdin.write("\n")
                process.stdin.flush()
                told = json.loads(process.stdout.readline())
                commands: Any = client.info("commandstats")
                process.stdin.close()
        # What a script calls inside is counted there, too; a call of ours is one of these.
        ours = ("evalsha", "eval", "hget", "hgetall", "subscribe", "script|load")
        sent = sum(int(commands.get(f"cmdstat_{each}", {"calls": 0})["calls"]) for each in ours)
        found[name] = {"per_s": told["sent"] / told["wall_s"], "calls": sent / told["sent"]}
    return found


# --- the command


def table(title: str, found: dict[str, list[Figures]]) -> None:
    """Print a row a contender."""
    print(f"\n{title}\n")
    print(
        "| | requests/s | µs CPU a request | at once, by the server | µs CPU of the server |\n|---|---:|---:|---:|---:|"
    )
    for name, rows in found.items():
        cells = [_cell([each[key] for each in rows]) for key in ("per_s", "cpu_us", "at_once", "server_us")]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _cell(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.0f}" + (f" ({low:,.0f} to {high:,.0f})" if len(values) > 1 else "")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="server,engines,many,single,calls")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="one round of a tenth: shows that it works, no figures")
    options = parser.parse_args()
    rounds, part = (1, 10) if options.short else (options.rounds, 1)
    only = options.only.split(",")
    venvs("-api")
    print(json.dumps(machine()))
    with tempfile.TemporaryDirectory() as directory, server(Path(directory)) as url, site() as place:
        here = Place(url, place, Path(directory))
        engines = ("libcurl", "aiohttp", "aiohttp_uvloop")
        groups: dict[str, tuple[str, dict[str, Callable[[], Figures]]]] = {
            "server": ("Bare sockets, 1000 at once", _engines(place, 40_000 // part, "loop")),
            "engines": ("Engines without a queue, 1000 at once", _engines(place, 20_000 // part, *engines)),
            "many": ("Messages of 1000 requests through the queue", _through(here, MANY, 20_000 // part)),
            "single": (f"One request a message, {THREADS} threads", _through(here, SINGLE, 5_000 // part)),
        }  # fmt: skip
        for name, (title, rows) in groups.items():
            if name in only:
                found: dict[str, list[Figures]] = {each: [] for each in rows}
                for _ in range(rounds):
                    for each, measure in rows.items():
                        found[each].append(measure())
                table(f"{title}, {rounds} rounds", found)
        if "calls" in only:
            print("\nLimits at 1000 requests/s to one host, by INFO commandstats\n")
            print("| | requests/s | Redis calls a request |\n|---|---:|---:|")
            for name, each in calls(here, 10.0 / part).items():
                print(f"| {name} | {each['per_s']:,.0f} | {each['calls']:.4f} |", flush=True)


def _engines(place: Site, times: int, *names: str) -> dict[str, Callable[[], Figures]]:
    return {name: lambda name=name: engine(name, place, times) for name in names}  # type: ignore[misc]  # bound here


def _through(
    place: Place, rows: dict[str, Callable[[Place, int], Figures]], times: int
) -> dict[str, Callable[[], Figures]]:
    return {name: lambda measure=measure: fresh(place, measure, times) for name, measure in rows.items()}  # type: ignore[misc]  # bound here


if __name__ == "__main__":
    main()

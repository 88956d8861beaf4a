"""One measurement: a fresh worker process of one contender against one server."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import redis
from contenders import PEERS, THREADS, Contender
from environment import ROOT

STUCK_S: Final = 240.0
IDLE_SETTLES_S: Final = 5.0
IDLE_S: Final = 10.0
COUNTER: Final = "bench:counter"


Figures = dict[str, float]


class MeasurementError(Exception):
    """A contender did not do what was asked of it; the text says what, and where its log lies."""


@dataclass
class Bench:
    """The place of a run: the server, a directory for logs, and the queues that were filled before."""

    url: str
    directory: Path
    filled: dict[tuple[str, str, int], list[tuple[bytes, int, bytes]]] = field(default_factory=dict)

    @property
    def client(self) -> "redis.Redis":
        """Give a new client."""
        return redis.Redis.from_url(self.url, socket_timeout=60.0)

    # --- the queue

    def fill(self, contender: Contender, row: str, times: int) -> None:
        """Have the contender's own producer queue so many tasks, or restore what it queued before."""
        key = (contender.name, row, times)
        task = "incr" if row == "incr" else "empty"
        with self.client as client:
            client.flushall()
            if key not in self.filled:
                self.submit(contender, row, task, times)
                self.filled[key] = _dump(client)
                client.flushall()
            _restore(client, self.filled[key])

    def submit(self, contender: Contender, row: str, task: str, times: int) -> dict[str, float]:
        """Run the contender's producer; give what it printed."""
        start = f"import {contender.script} as peer; peer.main()"  # by name: tasks of __main__ are no worker's
        argv = [contender.python(ROOT), "-c", start, task, str(times)]
        done = subprocess.run(
            argv,
            cwd=PEERS,
            env={**self._environ(contender, row), "BENCH_PRODUCES": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MeasurementError(f"the producer of {contender.name} failed:\n{done.stderr[-2000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
        return found

    # --- the worker

    @contextmanager
    def worker(self, contender: Contender, row: str, **environ: object) -> Iterator["Worker"]:
        """Run one worker process; end it, by force if need be."""
        number = len(list(self.directory.glob("*.marks")))
        name = f"{number:04d}-{contender.script}-{row}"
        log, marks = self.directory / f"{name}.log", self.directory / f"{name}.marks"
        marks.touch()
        env = {**self._environ(contender, row), "BENCH_MARKS": str(marks)}
        env |= {f"BENCH_{key.upper()}": str(value) for key, value in environ.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [contender.python(ROOT), *contender.worker],
                cwd=PEERS,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Worker(process, log, marks)
        finally:
            _end(process)

    def _environ(self, contender: Contender, row: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("GAIA_", "BENCH_"))}
        return {
            **own,
            "PYTHONPATH": str(PEERS),
            "PYTHONWARNINGS": "ignore",
            "GAIA_REDIS_URL": self.url,
            "GAIA_WORKER__LOG_LEVEL": "WARNING",
            "BENCH_REDIS_URL": self.url,
            "BENCH_ROW": row,
            "BENCH_THREADS": str(THREADS),
            "BENCH_PID": str(os.getpid()),
            **contender.environ,
        }

    # --- rows

    def throughput(self, contender: Contender, row: str, times: int, warm_up: int) -> Figures:
        """Work off a full queue; give tasks per second and CPU microseconds a task."""
        total = times + warm_up
        self.fill(contender, row, total)
        with self.client as client:
            before = _server_cpu_s(client)
            with self.worker(contender, row, first=warm_up, last=total) as worker:
                first, last = worker.marks(2)
                server_s = _server_cpu_s(client) - before
            self._check(client, contender, row, total)
        wall_s, cpu_s = last["at"] - first["at"], last["cpu_s"] - first["cpu_s"]
        return {
            "per_s": times / wall_s,
            "cpu_us": cpu_s / times * 1e6,
            "server_us": server_s / total * 1e6,
        }

    def _check(self, client: "redis.Redis", contender: Contender, row: str, total: int) -> None:
        """After the worker's graceful end: each task ran once, each result is there."""
        if row == "incr" and (ran := int(client.get(COUNTER) or 0)) != total:
            raise MeasurementError(f"{contender.name}: {ran} runs of {total} tasks")
        if row == "result":
            stored = max(client.dbsize(), client.hlen("huey.results.bench"))
            if stored < total:
                raise MeasurementError(f"{contender.name}: {stored} results of {total} tasks")

    def submitting(self, contender: Contender, task: str, times: int) -> Figures:
        """Submit to a queue that nobody works on; give submits per second and the producer's CPU microseconds each."""
        with self.client as client:
            client.flushall()
        found = self.submit(contender, "empty", task, times)
        return {"per_s": found["n"] / found["wall_s"], "cpu_us": found["cpu_s"] / found["n"] * 1e6}

    def latency(self, contender: Contender, samples: int) -> Figures:
        """Submit one by one to an idle worker; give the milliseconds from submit to start."""
        warm_up = 20
        with self.client as client:
            client.flushall()
        with self.worker(contender, "late", first=warm_up, last=samples + warm_up) as worker:
            self.submit(contender, "late", "late", 1)
            worker.marks(1)  # it has started
            self.submit(contender, "late", "late", samples + warm_up - 1)
            delays = sorted(worker.marks(2)[1]["delays"])
        return {"p50_ms": delays[len(delays) // 2] * 1e3, "p99_ms": delays[int(len(delays) * 0.99)] * 1e3}

    def idle(self, contender: Contender) -> Figures:
        """Leave a worker alone; give its CPU as a share of a core."""
        with self.client as client:
            client.flushall()
        with self.worker(contender, "idle", last=2) as worker:
            self.submit(contender, "idle", "empty", 2)
            worker.marks(1)
            time.sleep(IDLE_SETTLES_S)
            before, started = worker.cpu_s(), time.monotonic()
            time.sleep(IDLE_S)
            return {"percent": (worker.cpu_s() - before) / (time.monotonic() - started) * 100}

    def recovery(self, contender: Contender) -> Figures:
        """Kill the worker that runs a call; give the seconds until another one runs it."""
        with self.client as client:
            client.flushall()
        with self.worker(contender, "idle", last=2) as heir:
            self.submit(contender, "idle", "empty", 2)
            heir.marks(1)
            heir.signal(signal.SIGSTOP)  # so that the other one takes the call
            with self.worker(contender, "hold") as doomed:
                self.submit(contender, "hold", "hold", 1)
                doomed.marks(1)
                heir.signal(signal.SIGCONT)
                time.sleep(1)
                doomed.signal(signal.SIGKILL)
                killed_at = time.monotonic()
            return {"after_s": heir.marks(2)[1]["at"] - killed_at}


@dataclass
class Worker:
    """A running worker, and the lines it wrote."""

    process: "subprocess.Popen[bytes]"
    log: Path
    path: Path

    def marks(self, many: int) -> list[dict[str, Any]]:
        """Wait for so many lines.

        Raises:
            MeasurementError: if the worker ended or got stuck.
        """
        ends_at = time.monotonic() + STUCK_S
        while True:
            lines = self.path.read_text(encoding="ascii").splitlines()
            if len(lines) >= many:
                return [json.loads(line) for line in lines]
            if self.process.poll() is not None or time.monotonic() > ends_at:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise MeasurementError(f"{len(lines)} marks of {many}, see {self.log}:\n{tail}")
            time.sleep(0.01)

    def cpu_s(self) -> float:
        """Give the CPU seconds of its processes."""
        root = psutil.Process(self.process.pid)
        return sum(sum(each.cpu_times()[:2]) for each in (root, *root.children(recursive=True)))

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        os.killpg(self.process.pid, number)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _dump(client: "redis.Redis") -> list[tuple[bytes, int, bytes]]:
    names = list(client.scan_iter(count=10_000))
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.pttl(name)
        pipe.dump(name)
    found = pipe.execute()
    return [(name, max(0, found[2 * at]), found[2 * at + 1]) for at, name in enumerate(names)]


def _restore(client: "redis.Redis", dumped: list[tuple[bytes, int, bytes]]) -> None:
    for at in range(0, len(dumped), 5000):
        pipe = client.pipeline(transaction=False)
        for name, ttl_ms, value in dumped[at : at + 5000]:
            pipe.restore(name, ttl_ms, value)
        pipe.execute()


def _server_cpu_s(client: "redis.Redis") -> float:
    found: Mapping[str, Any] = client.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

"""Worker processes, ours and stock Celery's, forked from a server that has imported everything: they start in 0.2 s."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from celery import Celery, signals

import tests.chaos.operation
from tasks.api import assembly as _api  # noqa: F401 - imported ahead of the fork, as the next lines
from tasks.browser import assembly as _browser  # noqa: F401 - as above
from tasks.files import assembly as _files  # noqa: F401 - as above
from tasks.network import assembly as _network  # noqa: F401 - as above
from tasks.process import assembly as _process  # noqa: F401 - as above
from tasks.runtime import worker as runtime
from tests.chaos import ledger
from tests.support.waiting import until

THREADS = 4
STOCK_VISIBILITY_S = 5

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


class Worker:
    """A worker process; the faults are its methods."""

    def __init__(self, kind: str, url: str, queues: Sequence[str], directory: Path) -> None:
        self.directory = directory
        self.log = directory / "workers.txt"
        # It names tasks.app only after the fork: the app reads its settings when it is imported.
        run = {"ours": run_ours, "stock": run_stock}[kind]
        environ = {"GAIA_REDIS_URL": url, ledger.DIRECTORY: str(directory)}
        self.process: ForkServerProcess = _forks.Process(target=_run, args=(run, environ, self.log, queues))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def wait_ready(self) -> "Worker":
        ready = self.directory / f"{self.pid}.ready"
        until(lambda: ready.exists() or not self.alive, 60, what="a worker's readiness")
        assert self.alive, f"the worker ended with {self.process.exitcode}, see {self.log}"
        return self

    def wait_first_end(self, timeout_s: float = 60) -> None:
        until(lambda: ledger.has_ended_one(self.directory, self.pid) or not self.alive, timeout_s, what="a first end")

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(10)

    def stop(self, timeout_s: float = 40) -> int | None:
        """End it by SIGTERM; give the exit code, negative if it took SIGKILL."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self.process.join(timeout_s)
        if self.alive:
            self.kill()
        return self.process.exitcode


def _run(run: Callable[[Sequence[str]], int], environ: Mapping[str, str], log: Path, queues: Sequence[str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for name in [name for name in os.environ if name.startswith("GAIA_")]:
        del os.environ[name]
    os.environ.update(environ)
    signals.worker_ready.connect(_say_ready, weak=False)
    sys.exit(run(queues))


def _say_ready(**_: object) -> None:
    (Path(os.environ[ledger.DIRECTORY]) / f"{os.getpid()}.ready").touch()


def run_ours(queues: Sequence[str]) -> int:
    from tasks.app import app

    name = runtime.node_name(["chaos"], None)
    return runtime.run(app, queues, calls_at_once=THREADS, name=name, log_level="WARNING")


def stock_app(url: str) -> Celery:
    """Make a Celery app with the settings that lose least."""
    app = Celery("stock", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": STOCK_VISIBILITY_S,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
        visibility_timeout=STOCK_VISIBILITY_S,
    )
    for queue in tests.chaos.operation.QUEUES:
        app.task(name=f"{queue}.mark")(_mark)
    return app


def _mark(number: int, run_s: float = 0.0) -> dict[str, int]:
    ledger.perform(number, run_s)
    return {"number": number}


def run_stock(queues: Sequence[str]) -> int:
    worker = stock_app(os.environ["GAIA_REDIS_URL"]).Worker(
        quiet=True,
        hostname=runtime.node_name(["stock"], None),
        queues=list(queues),
        concurrency=THREADS,
        pool="threads",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    return int(worker.exitcode or 0)

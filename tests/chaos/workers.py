"""Worker processes, ours and stock Celery's; the faults are their methods."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from celery import Celery, signals

import tests.chaos.operation
from tasks.runtime import worker as runtime
from tests.chaos import ledger
from tests.support.cluster import clean_environ, stop
from tests.support.forking import Forked
from tests.support.waiting import until

THREADS = 4
STOCK_VISIBILITY_S = 5


class Worker:
    """A worker process."""

    def __init__(self, kind: str, url: str, queues: Sequence[str], directory: Path) -> None:
        self.directory = directory
        self.log = directory / "workers.txt"
        run = {"ours": run_ours, "stock": run_stock}[kind]
        environ = {**clean_environ(), "GAIA_REDIS_URL": url, ledger.DIRECTORY: str(directory)}
        self.process = Forked(_work, [run, queues], environ, self.log)
        self.pid = self.process.pid
        self.is_to_end = False
        """The row has killed or stopped it."""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_ready(self) -> "Worker":
        ready = self.directory / f"{self.pid}.ready"
        until(lambda: ready.exists() or not self.alive, 60, what="a worker's readiness")
        assert self.alive, f"the worker ended with {self.process.poll()}, see {self.log}"
        return self

    def wait_first_end(self, timeout_s: float = 60) -> None:
        until(lambda: ledger.has_ended_one(self.directory, self.pid) or not self.alive, timeout_s, what="a first end")

    def send(self, number: signal.Signals) -> None:
        self.is_to_end |= number == signal.SIGKILL
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(10)

    def stop(self, timeout_s: float = 40) -> int:
        """End it by SIGTERM; give the exit code, negative if it took SIGKILL."""
        self.is_to_end = True
        self.send(signal.SIGCONT)
        return stop(self.process, timeout_s)


def _work(run: Callable[[Sequence[str]], int], queues: Sequence[str]) -> None:
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

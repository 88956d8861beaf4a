"""The cluster that faults are made in: Valkey, workers, the monitor, Prometheus, a load, and who watches the alerts."""

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import psutil
from celery import Celery

from gaia import Gaia, wire
from tests.faults.background import Background
from tests.faults.load import STEADY, TRUE, Load
from tests.faults.scaling import scaled_config, scaled_rules
from tests.faults.watch import Watch
from tests.support import cluster, prometheus
from tests.support.waiting import until
from tests.support.web import Site, reply

QUEUES: Final = (*wire.QUEUES, "probe")
OPEN_S, PROBE_S, SAMPLE_S = 30.0, 60.0, 2.0
"""Times of the settings' defaults that are divided as the rules' are."""
LOOKBACK_S: Final = 300.0
SLOW_HOST: Final = "127.0.0.2"


class Field:
    """Everything a fault needs; leaving it ends every process."""

    def __init__(
        self,
        directory: Path,
        factor: float,
        *,
        queues: Sequence[str] = QUEUES,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.factor, self.queues = directory, factor, queues
        self._environ = dict(environ or {})
        self._stack = ExitStack()
        self._meanwhile = ExitStack()
        self._workers: dict[str, cluster.Worker] = {}
        self._supervised = threading.Event()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def real_s(self, seconds: float) -> float:
        """Give how long something takes here that takes `seconds` under the committed rules."""
        return seconds / self.factor

    # --- start

    def _start(self) -> None:
        enter = self._stack.enter_context
        # Chromium runs under another user, who has to reach its profile.
        self._scratch = Path(enter(tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True)))
        self._scratch.chmod(0o1777)
        self.data = self.directory / "root"
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / STEADY.partition(":")[2]).touch()
        self.server = enter(cluster.server(self.directory / "redis", cluster.tied()))
        self._stack.callback(_end_all_of, self.server.url)
        self.site = enter(Site(routes={"/": reply(b"well")}))
        self.other = enter(Site(routes={"/": reply(b"well")}, address=SLOW_HOST))
        self.gaia = enter(Gaia(self.server.url))
        control = Celery(broker=self.server.url, set_as_current=False)
        self._stack.callback(control.close)
        self.control = control.control
        enter(self._running())
        # While they start.
        self.prometheus = enter(self._prometheus())
        for worker in self._workers.values():
            worker.wait_ready()
        self.load = enter(Load(self.server.url, self.site.url(), self.queues))
        workers = f'sum(up{{job="gaia-workers"}}) == {len(self.queues)}'
        until(lambda: self.prometheus.values(workers), 120, what="every worker's metrics")
        self._stack.callback(self._meanwhile.close)
        self.watch = enter(Watch(self.prometheus, max(0.1, self.real_s(5))))

    @contextmanager
    def _running(self) -> Iterator[None]:
        keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        try:
            for each in self.queues:
                self.start_worker(each)
            keeper.start()
            yield
        finally:
            self._ended.set()
            if keeper.is_alive():
                keeper.join(30)
            for worker in self._workers.values():
                if worker.process.poll() is None:
                    worker.process.terminate()
            for worker in self._workers.values():
                cluster.stop(worker.process)

    def _keep(self) -> None:
        """Start the worker of test operations anew when it has died, as `gaia up` does, while that is asked for."""
        while not self._ended.wait(0.1):
            if self._supervised.is_set() and self._workers["probe"].process.poll() is not None:
                self.start_worker("probe")

    @contextmanager
    def _prometheus(self) -> Iterator[prometheus.Prometheus]:
        rules = self.directory / "rules"
        rules.mkdir()
        for path in prometheus.RULES:
            text = path.read_text()
            (rules / path.name).write_text(text if self.factor == 1 else scaled_rules(text, self.factor))
        change = scaled_config(self.factor, rules)
        options = (f"--query.lookback-delta={round(self.real_s(LOOKBACK_S) * 1000)}ms",)
        variables = {"GAIA_MONITOR__SAMPLE_S": f"{max(0.2, self.real_s(SAMPLE_S)):g}"}
        with prometheus.serve(
            self.directory, self.server.url, *options, change=change, prefix=cluster.tied(), **variables
        ) as server:
            yield server

    # --- workers

    def start_worker(self, queue: str) -> cluster.Worker:
        """Start the worker of a queue, named by it as `gaia up` does."""
        argv = [cluster.GAIA, "worker", queue, "--name", queue]
        if queue == "probe":
            argv = [sys.executable, "-m", "tests.support.probe_worker", queue]
        environ = {
            "GAIA_REDIS_URL": self.server.url,
            "GAIA_FILES__ROOTS": json.dumps({"data": str(self.data)}),
            "GAIA_PROCESS__EXECUTABLES": json.dumps([TRUE]),
            "GAIA_EGRESS__ALLOW_CIDRS": json.dumps(["127.0.0.0/8"]),
            "GAIA_LIMITS__OPEN_S": f"{self.real_s(OPEN_S):g}",
            "GAIA_LIMITS__PROBE_S": f"{self.real_s(PROBE_S):g}",
            "GAIA_WORKER__GRACE_S": "1",
            "TMPDIR": str(self._scratch),
            **self._environ,
        }
        found = self._workers[queue] = cluster.executed(
            [*cluster.tied(), *argv], environ, self.directory / f"{queue}.log"
        )
        return found

    def kill(self, queue: str) -> None:
        self._workers[queue].process.kill()
        self._workers[queue].process.wait()

    def restart(self, queue: str) -> None:
        """Start the worker of a queue anew; end the old one if it lives."""
        cluster.stop(self._workers[queue].process)
        self.start_worker(queue).wait_ready()

    def supervise(self) -> None:
        """Have the worker of test operations started anew whenever it dies, from now on."""
        self._supervised.set()

    # --- what a fault does by and by

    def meanwhile(self, doing: Background) -> None:
        """Do something beside what is waited for, until `end_meanwhile`, at the latest until the cluster ends."""
        self._meanwhile.enter_context(doing)

    def end_meanwhile(self) -> None:
        self._meanwhile.close()

    # --- waiting

    def settle(self) -> None:
        """Let the load run for as long as most rules look back, at most a minute; nothing may fire by then.

        Raises:
            AssertionError: if something fires, naming it.
        """
        self.pause(min(60.0, self.real_s(300)))
        assert self.fires_nothing(60), (
            f"before the fault: {sorted(map(str, self.watch.firing() or self.watch.pending()))}"
        )

    def pause(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def fires(self, names: Sequence[str], bound_s: float, subject: str = "") -> bool:
        """Wait until alerts have fired, of a worker or a queue if that is said; say whether they did."""
        return _came_true(lambda: self.watch.have_fired(names, subject), bound_s)

    def fires_nothing(self, bound_s: float) -> bool:
        """Wait until nothing fires or is about to; say whether that came."""
        return _came_true(self.watch.calm, bound_s)

    def ends(self, names: Sequence[str], bound_s: float) -> bool:
        """Wait until none of these fires; say whether that came."""
        return _came_true(lambda: not {each.name for each in self.watch.firing()} & set(names), bound_s)

    def ended_well(self) -> int:
        """Give how many runs of operations ended well, as Prometheus knows it, since the workers that live began."""
        return round(sum(self.prometheus.values('sum(gaia_operations_total{outcome="ok"})')))


def _came_true(condition: Callable[[], Any], bound_s: float) -> bool:
    with suppress(AssertionError):
        until(condition, bound_s)
        return True
    return False


def _end_all_of(url: str) -> None:
    """End what a killed worker of this cluster has left; its programs and browsers end by themselves within seconds."""
    with suppress(AssertionError):
        until(lambda: not _of(url), 15)
    for each in _of(url):
        with suppress(psutil.Error):
            each.send_signal(signal.SIGKILL)


def _of(url: str) -> list[psutil.Process]:
    """Give the processes that were started with this server's address, which holds a password of its own."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if each.pid != os.getpid() and each.environ().get("GAIA_REDIS_URL") == url:
                found.append(each)
    return found

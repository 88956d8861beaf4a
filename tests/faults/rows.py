"""The rows. Each says what it has to fire, and who may come along."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from gaia import api
from tests.faults.background import Repeated
from tests.faults.field import Field
from tests.faults.row import Fault
from tests.support.disks import NotPermittedError, mounted
from tests.support.probe import Grow, Poison
from tests.support.web import Asked, reply

ROWS: Final[dict[str, type[Fault]]] = {}

WAITS: Final = ("GaiaQueueWaitHigh", "GaiaQueueOldestTaskOld", "GaiaWaitBudgetBurnFast", "GaiaWaitBudgetBurnMedium")
"""Calls that waited while nobody fetched tell so when they start."""
BUDGET: Final = ("GaiaErrorBudgetBurnFast", "GaiaErrorBudgetBurnMedium")
"""Over a history as short as here every burn is over all of it; what looks over days wants more than a row lasts."""


GROWTH_BYTES_PER_S: Final = 1e6
GROWN_BYTES: Final = 3_000_000_000
"""More than the 2 GB that an alert is about, for longer than its ten minutes."""


def row(kind: type[Fault]) -> type[Fault]:
    ROWS[kind.name] = kind
    return kind


@row
class Control(Fault):
    """The load, and no fault."""

    name = "control"
    what = "no fault, the load alone, for an hour of the rules' time"
    expected = ()
    holds_s = 3600.0

    def make(self, field: Field) -> None:
        del field

    def clear(self, field: Field) -> None:
        del field


@row
class BrokerRestart(Fault):
    """Redis is killed, and comes back with its data."""

    name = "broker-restart"
    what = "Redis is killed and is back after five minutes; a batch of `api` that runs goes on asking for limits"
    expected = ("GaiaRedisDown", "GaiaMonitorBlind", "GaiaBrokerFailing", "GaiaLimitsWithoutRedis")
    allowed = ("GaiaWorkerNotReady", "GaiaSubsystemUnhealthy", "GaiaWorkersDying", *WAITS, *BUDGET)
    holds_s = 300.0

    def make(self, field: Field) -> None:
        field.site.routes["/held"] = _slow(1.0, field.site.stopped)
        lasts_s = field.real_s(1.5 * self.holds_s) + 15
        held = (api.Request(field.site.url("/held")),) * api.MOST_CALLS
        field.gaia.submit(api.RequestMany(held, concurrency=round(len(held) / lasts_s)))
        field.pause(2)
        field.server.kill()

    def clear(self, field: Field) -> None:
        field.server.start()


@row
class WorkerKilled(Fault):
    """The only worker of a queue is killed."""

    name = "worker-sigkill"
    what = "the only worker of `api` is killed with SIGKILL and does not come back"
    subject = "api"
    expected = ("GaiaWorkerDown", "GaiaQueueWithoutWorker", "GaiaQueueOldestTaskOld", "GaiaWorkersDying")
    allowed = ("GaiaWorkerNotReady", "GaiaWorkerNotScraped", "GaiaSubsystemUnhealthy", *WAITS, *BUDGET)

    def make(self, field: Field) -> None:
        field.site.routes["/held"] = _slow(5.0, field.site.stopped)
        for _ in range(3):
            field.gaia.submit(api.Request(field.site.url("/held")))
        field.pause(1)
        field.kill("api")

    def clear(self, field: Field) -> None:
        field.restart("api")


@row
class SlowUpstream(Fault):
    """The server that the api calls go to takes six seconds."""

    name = "slow-upstream"
    what = "the server that `api` calls answers after 6 s"
    subject = "api"
    expected = ("GaiaApiLatencyHigh",)
    environ: ClassVar[dict[str, str]] = {"GAIA_WORKER__CONCURRENCY": "50"}

    def make(self, field: Field) -> None:
        field.site.routes["/"] = _slow(6.0, field.site.stopped)

    def clear(self, field: Field) -> None:
        field.site.routes["/"] = reply(b"well")


@row
class BreakerOpen(Fault):
    """A second server fails whatever it is asked; its circuit opens."""

    name = "breaker-open"
    what = "a second server answers 503; its circuit opens, and calls end in `CircuitOpen`"
    subject = "api"
    expected = ("GaiaCircuitOpen", "GaiaApiErrorRateHigh", "GaiaApiRateLimited")
    # What comes back from an open circuit too late for its deadline ends in an error that counts as the cluster's own.
    allowed = BUDGET

    def make(self, field: Field) -> None:
        field.other.routes["/"] = reply(b"", 503)
        call = api.Request(field.other.url("/", field.other.address), retry=api.Retry(attempts=1))
        # What a circuit keeps out comes back when it may have closed: without a deadline they would be ever more.
        field.meanwhile(Repeated(lambda: field.gaia.submit(call, deadline=6), 0.5))

    def clear(self, field: Field) -> None:
        field.other.routes["/"] = reply(b"well")
        # Successes close a circuit: the calls go on for as long as that may take.
        field.pause(field.real_s(120) + 3)
        field.end_meanwhile()


@row
class FullDisk(Fault):
    """The file system of a root is full."""

    name = "full-disk"
    what = "the file system of a root of `files` is full"
    subject = "files"
    expected = ("GaiaDiskFull", "GaiaFilesErrorRateHigh")
    allowed = ("GaiaSubsystemUnhealthy",)

    @contextmanager
    def prepared(self, directory: Path) -> Iterator[None]:
        if os.geteuid():
            raise NotPermittedError("needs root")
        place = directory / "root"
        place.mkdir(parents=True)
        with mounted(place, "-o", "size=4m"):
            yield

    def make(self, field: Field) -> None:
        ballast = field.data / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def clear(self, field: Field) -> None:
        (field.data / "ballast").unlink(missing_ok=True)


@row
class DeadConsumer(Fault):
    """A worker lives, answers ping, and consumes nothing."""

    name = "dead-consumer"
    what = "the worker of `network` answers ping and its consumer is gone"
    subject = "network"
    expected = ("GaiaWorkerNotReady", "GaiaQueueOldestTaskOld")
    allowed = WAITS

    def make(self, field: Field) -> None:
        field.control.cancel_consumer(self.subject)
        field.pause(0.5)
        names = [each.name for each in field.gaia.nodes() if self.subject in each.queues]
        assert field.control.ping(names, timeout=5), f"{names} does not answer ping"

    def clear(self, field: Field) -> None:
        field.control.add_consumer(self.subject)


@row
class MemoryGrowth(Fault):
    """A worker keeps memory for good, call by call."""

    name = "memory-growth"
    what = "an operation keeps a megabyte a second of the rules' time for good, until it has 3 GB"
    subject = "probe"
    expected = ("GaiaWorkerMemoryGrowing", "GaiaWorkerMemoryHigh")
    # It is started anew at the end, which takes longer than two minutes twenty times as fast.
    allowed = ("GaiaWorkerDown", "GaiaQueueWithoutWorker", "GaiaWorkerNotScraped")

    def make(self, field: Field) -> None:
        # Whatever the factor, it comes to the same: in real time it takes as much longer.
        size_bytes = round(GROWTH_BYTES_PER_S * field.factor)
        field.meanwhile(Repeated(lambda: field.gaia.submit(Grow(size_bytes)), 1, GROWN_BYTES // size_bytes))

    def clear(self, field: Field) -> None:
        field.end_meanwhile()
        field.restart("probe")


@row
class StuckQueue(Fault):
    """A queue is paused and forgotten."""

    name = "stuck-queue"
    what = "`files` is paused and forgotten; calls go on coming"
    subject = "files"
    expected = ("GaiaQueueOldestTaskOld", "GaiaQueuePaused")
    allowed = ("GaiaQueueGrowing", *WAITS)

    def make(self, field: Field) -> None:
        field.gaia.queues.pause("files")

    def clear(self, field: Field) -> None:
        field.gaia.queues.resume("files")


@row
class PoisonTask(Fault):
    """A call kills every worker that runs it; the worker is started anew each time."""

    name = "poison-task"
    what = "a call kills its worker again and again, which is started anew"
    subject = "probe"
    expected = ("GaiaCallKillsWorkers", "GaiaDeadLettersNew", "GaiaWorkersDying")
    allowed = (
        "GaiaWorkerNotReady",
        "GaiaWorkerNotScraped",
        "GaiaQueueWithoutWorker",
        "GaiaWorkerDown",
        *WAITS,
        *BUDGET,
    )

    def make(self, field: Field) -> None:
        field.supervise()
        field.gaia.submit(Poison())

    def clear(self, field: Field) -> None:
        del field  # it is a dead letter by now


@row
class ExhaustedPool(Fault):
    """Every slot of a worker is taken by a call that waits for a server."""

    name = "exhausted-pool"
    what = "every slot of the worker of `api` waits for a server that does not answer; more calls wait"
    subject = "api"
    expected = ("GaiaApiPoolExhausted",)
    allowed = ("GaiaApiLatencyHigh", *WAITS)

    def __init__(self) -> None:
        self._answers = threading.Event()

    def make(self, field: Field) -> None:
        self._stopped = field.site.stopped
        field.site.routes["/held"] = self._hold
        for _ in range(12):
            field.gaia.submit(api.Request(field.site.url("/held"), timeout_s=3000), deadline=3000)

    def _hold(self, asked: Asked, sock: object) -> bytes | None:
        del asked, sock
        while not self._answers.wait(0.5):
            if self._stopped.is_set():
                return None
        return reply(b"at last")

    def clear(self, field: Field) -> None:
        del field
        self._answers.set()


def _slow(seconds: float, stopped: threading.Event) -> Callable[[Asked, object], bytes]:
    def route(asked: Asked, sock: object) -> bytes:
        del asked, sock
        stopped.wait(seconds)
        return reply(b"late")

    return route

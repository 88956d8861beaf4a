"""Work of every kind for a cluster whose figures are looked at: what goes well, what fails, what is kept back."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gaia import Gaia, api, browser, files, network, process
from gaia.contracts.base import Call
from tasks.cli.server import free_port
from tasks.cli.site import Site
from tasks.cli.workload import programs, workload
from tests.support import cluster, web
from tests.support.probe import Fail, Flaky

JOB = "paced"
TENANT = "impatient"
BUSY, GONE = "127.0.0.2", "127.0.0.3"
"""Hosts of their own: their circuits open, and the others' stay closed."""

SLOW_BYTES_PER_S = 20_000


class Pace:
    """How long each caller waits between two calls: without it a machine of two cores does nothing else."""

    def __init__(self) -> None:
        self.between_s = 0.05

    def slow(self) -> None:
        """Only keep what there is from growing old."""
        self.between_s = 0.5


@contextmanager
def under_way(url: str, folder: Path) -> Iterator[Pace]:
    """Run a worker of all queues and one of test operations, and give them work as long as the block lasts."""
    (folder / "files").mkdir()
    with ExitStack() as stack:
        site, busy = stack.enter_context(Site()), stack.enter_context(web.Site(address=BUSY))
        busy.routes["/"] = web.reply(b"", 503)
        allowed = [f"127.0.0.1/32:{site.port}", f"{BUSY}/32", f"{GONE}/32"]
        environ = {
            "GAIA_EGRESS__ALLOW_CIDRS": json.dumps(allowed),
            "GAIA_FILES__ROOTS": json.dumps({"data": str(folder / "files")}),
            "GAIA_PROCESS__EXECUTABLES": json.dumps(programs()),
        }
        queues = ("api", "files", "process", "network", "browser")
        stack.enter_context(cluster.worker(url, *queues, log=folder / "worker", **environ))
        stack.enter_context(cluster.probe_worker(url, log=folder / "probe"))
        g = stack.enter_context(Gaia(url))
        g.limits.set(f"job:{JOB}", bytes_per_s=SLOW_BYTES_PER_S)
        g.limits.set(f"key:{TENANT}", rate_per_s=2, burst=2)
        g.queues.pause("files.health")
        pace = Pace()
        stack.enter_context(_repeating(g, _rounds(site, busy, folder), pace))
        yield pace


def _rounds(site: Site, busy: web.Site, folder: Path) -> list[list[Call[object]]]:
    """Give what each of some callers does over and over."""
    work = [[job.call for batch in batches for job in batch] for batches in workload(site, folder).values()]
    once = api.Retry(attempts=2, base_s=0.01, cap_s=0.01)
    paced = network.Throttle(SLOW_BYTES_PER_S // 5, job=JOB, timeout_s=5)
    return [
        *work,
        [api.Request(busy.url(host=BUSY), retry=once), api.Request(f"http://{GONE}:{free_port(GONE)}/")],
        [api.Request(site.url("/json"), tenant=TENANT)] * 4,
        [files.Read("data:missing"), process.Run(("/not/allowed",)), network.Resolve("no-such-name.invalid")],
        [browser.Capture("http://127.0.0.1:1/"), Flaky(succeed_at=2), Fail()],
        [paced, network.AcquireConnection("localhost"), api.Health()],
    ]


@contextmanager
def _repeating(g: Gaia, rounds: list[list[Call[object]]], pace: Pace) -> Iterator[None]:
    ended = threading.Event()

    def repeat(calls: list[Call[object]]) -> None:
        while not ended.is_set():
            for each in calls:
                pending = g.submit(each, deadline=30)
                # One that waits for a limit or a circuit may take longer than what is measured.
                while not ended.is_set() and not pending.ready():
                    ended.wait(0.02)
                ended.wait(pace.between_s)
            g.submit(Fail(), result=False)

    with ThreadPoolExecutor(len(rounds)) as pool:
        try:
            done = [pool.submit(repeat, each) for each in rounds]
            yield
        finally:
            ended.set()
    for each in done:
        each.result()

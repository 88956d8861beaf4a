"""The run: a cluster as `gaia up` has it, the mix at once, then each part alone and without a queue."""

import json
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil
import redis

from config.settings import Browser
from gaia import Gaia, wire
from gaia.store import keys
from tasks.browser.service import BrowserService
from tasks.runtime.identity import Identity
from tests.load import parts
from tests.load.parts import Operation, World
from tests.support import cluster
from tests.support.dns import NameServer
from tests.support.web import Site

WAIT_S = 120.0

EACH_ITS_OWN = tuple((queue,) for queue in wire.QUEUES)
"""A worker for each subsystem, as `gaia up` has them."""

BROWSER = {"GAIA_WORKER__CONCURRENCY": "4", "GAIA_BROWSER__WARM_TABS": "4"}
"""What is not a default: tabs opened ahead, for as many calls as run at once."""


@dataclass
class Took:
    """What one run took: seconds from the first submit to the last result, CPU of all processes, right answers."""

    wall_s: float
    cpu_s: float
    right: int
    asked: int
    in_flight: int = 0
    """Queued or running when the last one was submitted."""
    ended_s: dict[str, float] = field(default_factory=dict)
    """When the last result of each part was there."""


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Give servers on loopback, and a directory for files."""
    service = BrowserService(
        settings=Browser(warm_tabs=4, recycle_after=100_000), dialler=_Loopback(), holder=Identity("bare@load")
    )
    with Site() as site, NameServer() as names, closing(service):
        found = World(site, names, folder / "files", service)
        found.serve()
        yield found


@contextmanager
def workers(folder: Path, given: World, *groups: tuple[str, ...]) -> Iterator[str]:
    """Run Valkey and a worker for each group of queues, none of which has done anything yet; give the server's URL."""
    folder.mkdir()
    with cluster.valkey(folder / "valkey") as url, ExitStack() as running:
        started = []
        for queues in groups:
            environ = {"GAIA_REDIS_URL": url, **given.environ(), **(BROWSER if "browser" in queues else {})}
            each = cluster.executed([cluster.GAIA, "worker", *queues], environ, folder / f"{'-'.join(queues)}.log")
            running.callback(cluster.stop, each.process)
            started.append(each)
        for each in started:
            each.wait_ready()
        yield url


def combined(
    url: str, given: World, run: str, mix: Mapping[str, int], *, in_tabs: bool = False, held: bool = False
) -> Took:
    """Have all operations of a mix in flight at once; wait for all, then look at every result.

    With `in_tabs` pages are loaded in tabs that stay; the first run opens them, which is part of its time. With `held`
    none starts before the last was submitted.
    """
    with Gaia(url) as g:
        began, used = time.time(), cpu_s()
        if in_tabs:
            parts.open_tabs(g, given)
        operations = {part: parts.operations(part, given, run, count) for part, count in mix.items()}
        every = [each for found in operations.values() for each in found]
        with _paused(g, mix if held else ()):
            pending = [each.unwrap() for each in g.submit_many(each.call for each in every)]
            submitted = time.time()
        results = [each.get(timeout=WAIT_S) for each in pending]
        took = Took(time.time() - began, cpu_s() - used, 0, len(every))
        ended = _ended(url, [each.id for each in pending])
    took.right = sum(each.is_right(result) for each, result in zip(every, results, strict=True))
    took.in_flight = sum(each > submitted for each in ended)
    at = 0
    for part, found in operations.items():
        took.ended_s[part] = max(ended[at : at + len(found)]) - began
        at += len(found)
    return took


@contextmanager
def _paused(g: Gaia, queues: Collection[str]) -> Iterator[None]:
    for each in queues:
        g.queues.pause(each)
    yield
    for each in queues:
        g.queues.resume(each)


def bare(part: str, operations: list[Operation]) -> Took:
    """Do the work of one part without queue and worker."""
    began, used = time.time(), cpu_s()
    right = parts.bare(part, operations)
    return Took(time.time() - began, cpu_s() - used, right, len(operations))


def cpu_s() -> float:
    """Give the CPU time of this process and all below it, those that have ended too."""
    found = 0.0
    own = psutil.Process()
    for each in [own, *own.children(recursive=True)]:
        try:
            found += sum(each.cpu_times()[:4])
        except psutil.Error:
            continue  # it has ended, and its parent has its time
    return found


def _ended(url: str, ids: list[str]) -> list[float]:
    """Give when each outcome was made, as its worker says: one machine, one clock."""
    with redis.Redis.from_url(url) as client:
        stored = client.mget([keys.result(each) for each in ids])
    return [datetime.fromisoformat(json.loads(each)["date_done"]).timestamp() for each in stored]


class _Loopback:
    """Dials this machine alone."""

    def dial(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        """Connect."""
        assert host == "127.0.0.1"
        return socket.create_connection((host, port), timeout_s)


def cores() -> int:
    """Give the processors that this process may use."""
    return len(os.sched_getaffinity(0))

"""Eight workers of the api queue at one host, one of them killed: what the host itself counts.

A web server on loopback notes when each request arrives. Whatever the workers do or die of, over no window may there be
more than rate * time + burst; and a host that is down gets one probe in each half-open window.
"""

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gaia import Gaia
from gaia.contracts import api
from gaia.errors import GaiaError
from gaia.pending import Pending
from tests.support import cluster
from tests.support.limits_cluster import over_since
from tests.support.waiting import until

PROCESSES = 8
CONCURRENCY = 4
THRESHOLD = 5
"""Failures that open a circuit."""

SPREAD_S = 0.05
"""On its way from leave to arrival one request may be faster than another by so much; `most_over` allows for that.

It is too little on a machine that stops a worker for longer; `over_since` needs no such allowance, but sees less."""

ONCE = api.Retry(attempts=1)


@dataclass
class Kept:
    """What a host counted of a rate."""

    rate_per_s: float
    burst: int
    arrivals: int = 0
    took_s: float = 0.0
    most_over: float = 0.0
    over_since: float = 0.0
    longest_gap_s: float = 0.0
    killed: bool = False
    failures: Counter[str] = field(default_factory=Counter)

    def holds(self) -> bool:
        """Say whether no window had more than it may, and the rate was made use of."""
        return self.most_over <= 0 and self.arrivals > self.burst and self.killed


@dataclass
class Probed:
    """What a host that is down counted: how many opened the circuit, and the gaps between the probes that followed."""

    open_s: float
    most_before: int
    before: int = 0
    probes: int = 0
    gaps_s: list[float] = field(default_factory=list)

    def holds(self) -> bool:
        """Say whether every half-open window had one probe alone, and no more came before than were under way."""
        return self.probes > 2 and min(self.gaps_s) >= self.open_s * 0.99 and self.before <= self.most_before


class Host:
    """A web server that notes arrivals, in a thread of its own."""

    def __init__(self, status: int) -> None:
        self._answer = f"HTTP/1.1 {status} Said\r\nContent-Length: 2\r\n\r\nok".encode()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.arrivals: list[float] = []
        self.port = 0

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.arrivals.append(time.monotonic())
                writer.write(self._answer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _end(self) -> None:
        self._server.close()
        others = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve inside the block."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


@contextmanager
def _workers(url: str, host: Host, directory: Path, many: int) -> Iterator[list[cluster.Worker]]:
    environ = {
        "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{host.port}"]),
        "GAIA_WORKER__CONCURRENCY": str(CONCURRENCY),
    }
    with ExitStack() as stack:
        yield [
            stack.enter_context(cluster.worker(url, "api", log=directory / f"{number}.log", **environ))
            for number in range(many)
        ]


def rate(
    directory: Path,
    url: str,
    *,
    rate_per_s: float,
    burst: int,
    seconds: float,
    processes: int = PROCESSES,
    spread_s: float = SPREAD_S,
) -> Kept:
    """Keep every worker busy with batches at one host for so long; kill one half-way."""
    host, found = Host(200), Kept(rate_per_s, burst)
    with host.serving(), Gaia(url) as gaia:
        gaia.limits.set("global", rate_per_s=1_000_000, burst=1_000_000)
        gaia.limits.set("127.0.0.1", rate_per_s=rate_per_s, burst=burst)
        with _workers(url, host, directory, processes) as workers:
            request = api.Request(url=f"http://127.0.0.1:{host.port}/", retry=ONCE)
            needed = int(rate_per_s * seconds * 2) + burst
            size = max(10, min(1000, needed // (processes * 8)))
            submitted = time.monotonic()
            pendings = [
                gaia.submit(api.RequestMany((request,) * size, concurrency=100), deadline=seconds)
                for _ in range(needed // size + processes)
            ]
            until(lambda: len(host.arrivals) > burst, 60, what="the first requests")
            began = host.arrivals[0]
            until(lambda: time.monotonic() - began > seconds / 2, seconds + 60, what="half of the time")
            workers[-1].process.kill()
            workers[-1].process.wait(10)
            found.killed = True
            found.failures = _failures(pendings, seconds)
    _count(found, host.arrivals, submitted, spread_s)
    return found


def _failures(pendings: Sequence[Pending[api.Outcomes]], seconds: float) -> Counter[str]:
    """Wait for all; count the errors of those that failed in another way than for want of time."""
    found: Counter[str] = Counter()
    for each in pendings:
        try:
            items = each.get(timeout=seconds + 120).items
        except GaiaError as error:
            found[f"batch: {type(error).__name__}"] += 1
            continue
        found.update(type(item.error).__name__ for item in items if not item.ok)
    for late in ("batch: DeadlineExceeded", "batch: Expired", "LimitExceeded", "DeadlineExceeded"):
        del found[late]
    return found


def _count(found: Kept, arrivals: list[float], submitted: float, spread_s: float) -> None:
    times = sorted(arrivals)
    found.arrivals, found.took_s = len(times), times[-1] - times[0]
    found.longest_gap_s = max((late - early for early, late in itertools.pairwise(times)), default=0.0)
    found.most_over = most_over(times, found.rate_per_s, found.burst + spread_s * found.rate_per_s)
    found.over_since = over_since(submitted, times, found.rate_per_s, found.burst)


def most_over(times: Sequence[float], rate_per_s: float, burst: float) -> float:
    """Give by how much the count of any window passes rate * time + burst at most; 0 or less is within.

    A window from the i-th to the j-th arrival has j - i + 1 of them, so the worst i for a j is the one with the least
    i - rate * t(i).
    """
    over, least = float("-inf"), float("inf")
    for number, at in enumerate(times):
        level = number - rate_per_s * at
        least = min(least, level)
        over = max(over, level - least + 1 - burst)
    return over


def probes(directory: Path, url: str, *, open_s: float, seconds: float, processes: int = PROCESSES) -> Probed:
    """Have calls wait for a host that is down; each half-open window lets one of them through."""
    host, found = Host(500), Probed(open_s, THRESHOLD + processes * CONCURRENCY)
    with host.serving(), Gaia(url) as gaia:
        gaia.limits.set("127.0.0.1", open_s=open_s, failure_threshold=THRESHOLD)
        with _workers(url, host, directory, processes):
            call = api.Request(url=f"http://127.0.0.1:{host.port}/", retry=ONCE)
            pendings = [gaia.submit(call, deadline=seconds) for _ in range(int(processes * seconds * 2) + 50)]
            for each in pendings:
                try:
                    each.get(timeout=seconds + 60)
                except GaiaError:
                    continue
    times = sorted(host.arrivals)
    gaps = [late - early for early, late in itertools.pairwise(times)]
    opened = next((index for index, gap in enumerate(gaps) if gap >= open_s * 0.99), len(gaps))
    # Before it was known to be open, everybody who was under way arrived; the last of them after it had opened.
    found.before, found.probes, found.gaps_s = opened + 1, len(gaps) - opened, gaps[opened + 1 :]
    return found

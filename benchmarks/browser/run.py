"""Captures a second beside the peers, memory a tab, time to a tab; or how many instances and tabs a machine holds.

`.venv/bin/python benchmarks/browser/run.py --modules DIR --playwright PYTHON`, three minutes: DIR holds
`node_modules` with puppeteer-cluster and puppeteer-core, PYTHON has playwright. Peers whose
place is not given are left out.
`--hold 100 1000` opens 100 instances and 1000 tabs instead, as far as memory and `--processes` (about 1700 are needed)
allow, and says what was reached and what stopped it. `--keep 2000` says what so many captures and sessions leave in the
worker's memory, in five minutes.
"""

import argparse
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from config.settings import Browser  # noqa: E402 - beside this file
from gaia import Gaia, browser  # noqa: E402
from gaia.errors import GaiaError  # noqa: E402
from tasks.browser import chromium  # noqa: E402
from tasks.browser.service import BrowserService  # noqa: E402
from tasks.runtime.identity import Identity  # noqa: E402
from tasks.scope import Scope  # noqa: E402
from tests.support.cluster import valkey, worker  # noqa: E402
from tests.support.options import whole  # noqa: E402
from tests.support.web import Site, reply  # noqa: E402

HERE = Path(__file__).parent
ROWS = "".join(f"<tr><td>{n}</td><td>name {n}</td><td>{n * n}</td></tr>" for n in range(300))
PAGE = f"<!doctype html><title>Table</title><table>{ROWS}</table>".encode()
FREE_BYTES = 2 * 1024**3
WARM_UP = 200
A_START = 8  # processes that one more browser with a tab brings


class Loopback:
    """Dials loopback alone."""

    def dial(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        """Connect."""
        return socket.create_connection((host, port), timeout_s)


def cpu_s() -> float:
    """Give the CPU seconds of the whole machine: Chromium's processes come and go."""
    times = psutil.cpu_times()
    return float(times.user + times.system)


def through_queue(gaia: Gaia, url: str, captures: int, isolation: Any) -> dict[str, float]:
    """Capture through the queue; give captures a second."""

    def some(number: int) -> int:
        calls = (browser.Capture(url=url, isolation=isolation, timeout_s=60) for _ in range(number))
        pending = [gaia.submit(each) for each in calls]
        return [len(each.get(timeout=120).png or b"") for each in pending][-1]

    some(8)
    began = time.perf_counter()
    size = some(captures)
    return {"per_s": captures / (time.perf_counter() - began), "bytes": size}


def peer(argv: list[str], **variables: str) -> dict[str, float]:
    """Run a peer; give what it prints."""
    environ = {**os.environ, **variables}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(options: argparse.Namespace) -> None:
    """Print medians of interleaved rounds."""
    binary = str(chromium.find(None))
    with tempfile.TemporaryDirectory() as folder, Site() as site, valkey(Path(folder)) as url:
        site.routes["/"] = reply(PAGE, 200, "Content-Type: text/html")
        allowed = {"GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"])}
        many = [binary, site.url(), str(options.captures), str(options.concurrency)]
        with (
            worker(
                url, "browser", log=Path(folder) / "log", **allowed, GAIA_WORKER__CONCURRENCY=str(options.concurrency)
            ),
            Gaia(url) as gaia,
        ):
            contenders: dict[str, Callable[[], dict[str, float]]] = {
                "gaia, fresh": lambda: through_queue(gaia, site.url(), options.captures, "fresh"),
                "gaia, reuse": lambda: through_queue(gaia, site.url(), options.captures, "reuse"),
            }
            if options.modules:
                script = ["node", str(HERE / "cluster.mjs"), *many]
                contenders["puppeteer-cluster"] = lambda: peer(script, BENCH_MODULES=options.modules)
            if options.playwright:
                contenders["playwright"] = lambda: peer([options.playwright, str(HERE / "bare.py"), *many])
            report(contenders, options)


def report(contenders: dict[str, Callable[[], dict[str, float]]], options: argparse.Namespace) -> None:
    """Run the rounds."""
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, run in contenders.items():
            before = cpu_s()
            found = run()
            seen[name].append((found["per_s"], 1000 * (cpu_s() - before) / options.captures, found["bytes"]))
    print("| | captures/s | ms CPU a capture, of the machine | bytes |\n|---|---|---|---|")
    for name, rounds in seen.items():
        rates, cpu, sizes = zip(*rounds, strict=True)
        middle = statistics.median(rates)
        spread = f"{middle:.1f} ({min(rates):.1f} to {max(rates):.1f})"
        print(f"| {name} | {spread} | {statistics.median(cpu):.0f} | {sizes[0]:.0f} |")


def scope() -> Scope:
    """Give a scope of ten minutes."""
    return Scope.lasting(600, operation="browser.benchmark")


def acquire() -> None:
    """Print how long a tab takes when the machine is idle, warm and not, and what a tab holds."""
    for name, warm in (("warm", 1), ("not warm", 0)):
        with closing(service(Browser(warm_tabs=warm))) as found:
            found.capture(browser.Capture(html="x", formats=("text",)), scope())
            times = []
            for _ in range(100):
                wait_for_warm(found, warm)
                began = time.perf_counter()
                opened = found.open(browser.Open(), scope())
                times.append(1000 * (time.perf_counter() - began))
                found.close_session(browser.Close(opened.id), scope())
        times.sort()
        print(f"session with a tab, {name}: median {times[49]:.1f} ms, p99 {times[98]:.1f} ms")


def wait_for_warm(found: BrowserService, warm: int) -> None:
    """Let the pool come to rest: an idle machine is what is measured."""
    while found.pool.gauges()["warm_tabs"] < warm:
        time.sleep(0.01)
    time.sleep(0.02)


def service(settings: Browser) -> BrowserService:
    """Make one."""
    return BrowserService(settings=settings, dialler=Loopback(), holder=Identity("benchmark"))


def pss_bytes(found: BrowserService) -> int:
    """Sum the proportional set size of all Chromium processes."""
    total = 0
    for each in found.pool.instances:
        for process in (psutil.Process(each.pid), *psutil.Process(each.pid).children(recursive=True)):
            total += process.memory_full_info().pss
    return total


def processes(found: BrowserService) -> int:
    """Count what runs under all browsers, their shells included."""
    return sum(1 + len(psutil.Process(each.pid).children(recursive=True)) for each in found.pool.instances)


def obstacle(found: BrowserService, most: int) -> str:
    """Say why no more can be opened, "" if nothing is in the way."""
    if psutil.virtual_memory().available <= FREE_BYTES:
        return f"less than {FREE_BYTES / 1e9:.1f} GB of memory are free"
    return f"{processes(found)} processes run, {most} may" if processes(found) + A_START > most else ""


def hold(instances: int, tabs: int, most: int) -> None:
    """Open as many as memory allows, each tab with the page of the benchmark, and say what was reached."""
    per = -(-tabs // instances)
    settings = Browser(max_instances=instances, max_tabs=tabs, tabs_per_instance=per, max_sessions=tabs, warm_tabs=0)
    with Site() as site, closing(service(settings)) as found:
        site.routes["/"] = reply(PAGE, 200, "Content-Type: text/html")
        began, opened, stopped = time.perf_counter(), 0, ""
        try:
            while opened < tabs and not (stopped := obstacle(found, most)):
                session = found.open(browser.Open(idle_s=3600), scope()).id
                found.navigate(browser.Navigate(session, site.url()), scope())
                opened += 1
        except GaiaError as failure:
            stopped = str(failure)
        live = sum(
            1 for each in [*found.sessions.all] if found.evaluate(browser.Evaluate(each, "1"), scope()).value == 1
        )
        held, many = pss_bytes(found), processes(found)
        print(f"stopped: {stopped}" if stopped else "nothing stopped it")
        print(
            f"{len(found.pool.instances)} instances, {opened} tabs opened, {live} answered, in "
            f"{time.perf_counter() - began:.0f} s; {held / 1e9:.2f} GB PSS, {held / max(1, opened) / 1e6:.1f} MB a "
            f"tab, {many} processes"
        )


def keep(calls: int) -> None:
    """Say what so many captures, then as many sessions, leave in this process: what grows evenly is a leak."""
    with closing(service(Browser())) as found:

        def capture() -> None:
            found.capture(browser.Capture(html="x", formats=("text",)), scope())

        def session() -> None:
            opened = found.open(browser.Open(), scope())
            found.close_session(browser.Close(opened.id), scope())

        for act in (capture, session):
            for _ in range(WARM_UP):
                act()
            before, grown = psutil.Process().memory_full_info().uss, []
            for _ in range(4):
                for _ in range(calls // 4):
                    act()
                gc.collect()
                grown.append(f"{(psutil.Process().memory_full_info().uss - before) / 2**20:+.2f}")
            print(f"{act.__name__}s: private MiB after each quarter of {calls}: {', '.join(grown)}", flush=True)


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captures", type=int, default=60)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modules")
    parser.add_argument("--playwright")
    parser.add_argument("--hold", nargs=2, type=int, metavar=("INSTANCES", "TABS"))
    parser.add_argument("--processes", type=int, default=4000, help="stop before there are more of Chromium's")
    parser.add_argument("--keep", type=whole, metavar="CALLS", help="say what so many leave in memory")
    options = parser.parse_args()
    if options.keep:
        keep(options.keep)
        return
    if options.hold:
        hold(*options.hold, options.processes)
        return
    acquire()
    compare(options)


if __name__ == "__main__":
    main()

"""Our client of Chromium beside Playwright's: cold start, the cost of a tab, and what SIGKILL of the program leaves.

`.venv/bin/python benchmarks/browser/drivers.py --playwright PYTHON --rounds 5`, half a minute; PYTHON has it. The same
headless shell, no sandbox, no proxy of ours, one fresh context a tab, each tab with the page of the benchmark.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from run import PAGE, scope, service  # noqa: E402 - beside this file

from config.settings import Browser  # noqa: E402
from gaia import browser as b  # noqa: E402
from tasks.browser import chromium  # noqa: E402
from tests.support.web import Site, reply  # noqa: E402

LEFT_S = 5.0


def ours(url: str, tabs: int) -> None:
    """Do with our pool what `drive.py` does with Playwright, and hold it."""
    began = time.perf_counter()
    found = service(Browser(warm_tabs=0, no_sandbox=True, max_sessions=tabs))

    def opened() -> str:
        return found.open(b.Open(idle_s=3600), scope()).id

    found.navigate(b.Navigate(opened(), url), scope())
    start_s = time.perf_counter() - began
    times = []
    for _ in range(tabs - 1):
        began = time.perf_counter()
        session = opened()
        times.append(1000 * (time.perf_counter() - began))
        found.navigate(b.Navigate(session, url), scope())
    print(json.dumps({"start_s": start_s, "tab_ms": statistics.median(times)}), flush=True)
    time.sleep(600)


def pss(processes: list[psutil.Process]) -> int:
    """Sum what they hold."""
    total = 0
    for each in processes:
        with suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total


def of_chromium(process: psutil.Process) -> bool:
    """Say whether it is one of Chromium's, the shell around it included."""
    with suppress(psutil.Error):
        return any("user-data-dir" in each or "--type=" in each for each in process.cmdline())
    return False


def measured(argv: list[str], tabs: int) -> dict[str, float]:
    """Run a program until it holds its tabs, weigh it, kill it, and count what is left."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": folder}) as program,
    ):
        Path(folder).chmod(0o711)
        assert program.stdout is not None  # noqa: S101 - it is a pipe
        found: dict[str, Any] = json.loads(program.stdout.readline())
        top = psutil.Process(program.pid)
        beneath = top.children(recursive=True)
        chrome = [each for each in beneath if of_chromium(each)]
        driver = [top, *(each for each in beneath if each not in chrome)]
        found["driver_mb"], found["tab_mb"] = pss(driver) / 1e6, pss(chrome) / 1e6 / tabs
        found["processes"] = len(driver)
        os.kill(program.pid, signal.SIGKILL)
        ends_at = time.monotonic() + LEFT_S
        while time.monotonic() < ends_at and (left(beneath) or any(Path(folder).iterdir())):
            time.sleep(0.02)
        found["left"], found["gone_s"] = len(left(beneath)), LEFT_S - max(0.0, ends_at - time.monotonic())
        found["profiles"] = len(list(Path(folder).iterdir()))
        for each in left(beneath):
            each.kill()
    return found


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Give those that still run."""
    found = []
    for each in processes:
        with suppress(psutil.Error):
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def main() -> None:
    """Print medians of interleaved rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tabs", type=int, default=20)
    parser.add_argument("--playwright")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        ours(options.ours, options.tabs)
        return
    with Site() as site:
        site.routes["/"] = reply(PAGE, 200, "Content-Type: text/html")
        tabs = str(options.tabs)
        programs = {"gaia": [sys.executable, __file__, "--ours", site.url(), "--tabs", tabs]}
        if options.playwright:
            script = str(Path(__file__).parent / "drive.py")
            programs["playwright"] = [options.playwright, script, str(chromium.find(None)), site.url(), tabs]
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
        for _ in range(options.rounds):
            for name, argv in programs.items():
                seen[name].append(measured(argv, options.tabs))
    print(
        "| | first page, s | a tab, ms | MB a tab | the driver, MB (processes) "
        "| processes, profiles left 5 s after SIGKILL | gone after, s |"
        "\n|---|---|---|---|---|---|---|"
    )
    for name, rounds in seen.items():

        def middle(field: str, rounds: list[dict[str, float]] = rounds) -> float:
            return statistics.median(each[field] for each in rounds)

        remained, profiles = (sum(each[field] for each in rounds) for field in ("left", "profiles"))
        print(
            f"| {name} | {middle('start_s'):.2f} | {middle('tab_ms'):.1f} | {middle('tab_mb'):.1f} | "
            f"{middle('driver_mb'):.0f} ({middle('processes'):.0f}) | {remained:.0f}, {profiles:.0f} in "
            f"{options.rounds} rounds | "
            f"{middle('gone_s'):.2f} |"
        )


if __name__ == "__main__":
    main()

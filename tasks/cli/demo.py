"""`gaia demo`: a cluster of its own, a small real workload over all five subsystems, and a table of what came back."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from config.settings import read
from gaia import Gaia
from gaia.client import URL_VARIABLE
from gaia.errors import GaiaError, NotReady
from tasks.cli import tether
from tasks.cli.site import Site
from tasks.cli.state import DEFAULT, StateDir
from tasks.cli.up import GAIA
from tasks.cli.workload import Batches, Job, Seen, Wrong, programs, workload

BOUND_S: Final = 120.0
"""For all of it; on two cores it takes a tenth of that."""

SIDE_BY_SIDE: Final = 8
"""Calls of one subsystem under way at once."""


@dataclass(frozen=True)
class Done:
    """One call that ended: with what was seen, or with a sentence about what went wrong."""

    operation: str
    seconds: float
    seen: Seen | None
    failure: str | None = None


@click.command()
def demo() -> None:
    """Run a cluster and a small real workload, show what came back, and stop the cluster."""
    from tasks.browser import chromium  # it is asked before anything starts

    chromium.find(read().browser.chromium)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    terminal = sys.stdout.isatty()
    console = Console(force_terminal=terminal, width=None if terminal else 110)
    kept = StateDir(DEFAULT)
    kept.create()
    results = kept.directory("demo")
    ends_at = time.monotonic() + BOUND_S
    with tempfile.TemporaryDirectory(prefix="gaia-demo-") as scratch, Site() as site:
        log = results / "cluster.log"
        console.print(f"A cluster starts in {scratch}; its log is {_short(log)}.", highlight=False, soft_wrap=True)
        env = _environment(site, Path(scratch))
        with _cluster(Path(scratch) / "state", env, log, ends_at) as url, Gaia(url) as g:
            done = _Run(g, ends_at).all(workload(site, Path(_short(results))), console)
    console.print(_table(done))
    _judge(done, time.monotonic() <= ends_at, log)


class _Run:
    """The workload under way: five subsystems at once, each with a few calls side by side."""

    def __init__(self, g: Gaia, ends_at: float) -> None:
        self._gaia = g
        self._ends_at = ends_at
        self._stop = threading.Event()

    def all(self, work: Mapping[str, Batches], console: Console) -> list[Done]:
        columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress, ThreadPoolExecutor(len(work)) as pool:
            bars = {name: progress.add_task(name, total=sum(map(len, batches))) for name, batches in work.items()}
            futures = [pool.submit(self._subsystem, batches, progress, bars[name]) for name, batches in work.items()]
            try:
                return [each for future in futures for each in future.result()]
            except BaseException:
                # The pools wait for their threads; those ask this flag every second.
                self._stop.set()
                raise

    def _subsystem(self, batches: Batches, progress: Progress, bar: Any) -> list[Done]:
        found = []
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            for batch in batches:
                for each in pool.map(self._one, batch):
                    found.append(each)
                    progress.advance(bar)
        return found

    def _one(self, job: Job) -> Done:
        started = time.monotonic()
        try:
            seen, failure = job.look(self._result(job)), None
        except (GaiaError, Wrong) as error:
            seen, failure = None, f"{job.call.OPERATION}: {error}"
        return Done(job.call.OPERATION, time.monotonic() - started, seen, failure)

    def _result(self, job: Job) -> Any:
        pending = self._gaia.submit(job.call, deadline=BOUND_S)
        while True:
            try:
                return pending.get(timeout=1.0)
            except NotReady:
                if self._stop.is_set() or time.monotonic() >= self._ends_at:
                    raise Wrong(f"call {pending.id} had no result in time") from None


def _environment(site: Site, scratch: Path) -> dict[str, str]:
    """Give the cluster's environment: the demo's own settings, and where Chromium is and how it runs."""
    (scratch / "files").mkdir()
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("GAIA_") or name.upper().startswith("GAIA_BROWSER")
    }
    return plain | {
        "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"]),
        "GAIA_FILES__ROOTS": json.dumps({"data": str(scratch / "files")}),
        "GAIA_PROCESS__EXECUTABLES": json.dumps(programs()),
    }


@contextmanager
def _cluster(state_dir: Path, env: Mapping[str, str], log: Path, ends_at: float) -> Iterator[str]:
    """Run `gaia up` as long as the block lasts; give the address of its Redis once all workers are ready."""
    tied = (sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid()))
    command = (*tied, *GAIA, "up", "--state-dir", str(state_dir), "--flower-port", "0", "--no-monitor")
    with log.open("wb") as file:
        cluster = subprocess.Popen(  # noqa: S603 - this command itself
            command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield _wait_until_up(cluster, StateDir(state_dir), log, ends_at)
    finally:
        cluster.terminate()
        try:
            cluster.wait(60)
        except subprocess.TimeoutExpired:
            # Its supervisor outlives it and stops what runs.
            cluster.kill()
            cluster.wait()


def _wait_until_up(cluster: "subprocess.Popen[bytes]", state: StateDir, log: Path, ends_at: float) -> str:
    while time.monotonic() < ends_at:
        url = state.announced().get(URL_VARIABLE)
        if url is not None:
            return url
        try:
            code = cluster.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        last = log.read_text(errors="replace").strip().rpartition("\n")[2].removeprefix("gaia: ")
        raise click.ClickException(f"the cluster did not start (exit code {code}): {last}; see {_short(log)}")
    raise click.ClickException(f"the cluster was not ready within {BOUND_S:g} s: see {_short(log)}")


def _table(done: list[Done]) -> Table:
    table = Table(title="What came back", title_justify="left")
    for heading in ("operation", "calls", "ok"):
        table.add_column(heading, justify="left" if heading == "operation" else "right")
    table.add_column("came back", overflow="fold")
    for heading in ("bytes", "p50 s", "max s"):
        table.add_column(heading, justify="right")
    for operation in dict.fromkeys(each.operation for each in done):
        table.add_row(*_row(operation, [each for each in done if each.operation == operation]))
    return table


def _row(operation: str, done: list[Done]) -> list[str]:
    seen = [each.seen for each in done if each.seen]
    notes = Counter(each.note for each in seen)
    took = [each.seconds for each in done]
    return [
        operation,
        str(len(done)),
        str(len(seen)),
        "\n".join(note if count == 1 else f"{note} ({count} times)" for note, count in notes.items()),
        f"{sum(each.size_bytes for each in seen):,}",
        f"{median(took):.3f}",
        f"{max(took):.3f}",
    ]


def _judge(done: list[Done], in_time: bool, log: Path) -> None:  # noqa: FBT001 - private, and called once
    failures = [each.failure for each in done if each.failure]
    if failures:
        raise click.ClickException(
            f"{len(failures)} of {len(done)} calls failed, the first with: {failures[0]}; see {_short(log)}"
        )
    if not in_time:
        raise click.ClickException(f"it took longer than {BOUND_S:g} s")


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

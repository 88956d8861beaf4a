"""The process manager beside what the standard library gives: `.venv/bin/python benchmarks/process/run.py`.

Rounds are interleaved, every figure is the median of the rounds, and CPU stands beside wall: on a shared machine only
ratios within a round count. Nothing is asserted.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from config import programs  # noqa: E402
from gaia import Gaia, process  # noqa: E402
from gaia.contracts.process import Limits  # noqa: E402
from tasks.process.keepers import answer  # noqa: E402
from tasks.process.service import ProcessService  # noqa: E402
from tasks.process.starting import _Streams  # noqa: E402
from tasks.roots.roots import Roots  # noqa: E402
from tasks.runtime.identity import Identity  # noqa: E402
from tasks.scope import Scope  # noqa: E402
from tests.support import cluster  # noqa: E402

TRUE = os.path.realpath("/bin/true")
SLEEP = os.path.realpath("/bin/sleep")
MODES = (("auto", True), ("auto", False), ("sampled", True), ("sampled", False))


def service(enforcement: str, namespace: bool) -> ProcessService:  # noqa: FBT001 - a row of the table
    """Make a service of its own."""
    given = programs.Process(executables=(TRUE, SLEEP), enforcement=enforcement, pid_namespace=namespace)  # type: ignore[arg-type]
    identity = Identity("bench@here")
    return ProcessService(settings=given, roots=Roots({}), own=lambda: identity)


def cpu_s(pids: list[int]) -> float:
    """Sum the CPU time of processes, and of the children they waited for."""
    total = 0.0
    for pid in pids:
        try:
            total += sum(psutil.Process(pid).cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def exactly_s(pids: list[int]) -> float:
    """Sum the CPU time of the threads of processes in nanoseconds, /proc/<pid>/schedstat: ticks hide short looks."""
    files = [each for pid in pids for each in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(each.read_text().split()[0]) for each in files) / 1e9


def own_s() -> float:
    """Sum the CPU time of this process and of all below it."""
    return cpu_s([os.getpid(), *(each.pid for each in psutil.Process().children(recursive=True))])


def timed(act: Callable[[], object], count: int) -> tuple[float, float]:
    """Give the median wall time and the mean CPU time of a step, in milliseconds."""
    walls = []
    before = own_s()
    for _ in range(count):
        start = time.perf_counter()
        act()
        walls.append(time.perf_counter() - start)
    return statistics.median(walls) * 1e3, (own_s() - before) / count * 1e3


# --- start


def bare_start() -> None:
    """Start a program as fast as the kernel does."""
    pid = os.posix_spawn(TRUE, ["true"], {})
    ended.append(pid)


ended: list[int] = []


def ours(found: ProcessService) -> tuple[Callable[[], None], Callable[[], None]]:
    """Give what starts a program as the service does, from the call to a running program, and what sees its end."""
    starter = found._admission._starter  # noqa: SLF001 - the very path
    running: list[Any] = []

    def start() -> None:
        with ExitStack() as stack:
            plan = stack.enter_context(starter.planned(process.Run((TRUE,))))
            streams = stack.enter_context(_Streams(keep_stdin=False))
            keeper = starter._asked(plan, streams)  # noqa: SLF001 - as above
            os.close(answer(keeper, 20).fds[0])
            running.append((keeper, stack.pop_all()))

    def end() -> None:
        keeper, stack = running.pop()
        report = answer(keeper, 20).body
        if report["again"]:
            found._admission.keepers.give_back(keeper)  # noqa: SLF001 - as above
        else:
            keeper.close()
        stack.close()

    return start, end


def starts(rounds: int, count: int) -> None:
    """Measure until a program runs."""
    print("\n## Start: until execve(2) has succeeded, in ms (median of rounds)\n")
    rows: dict[str, list[float]] = {}
    with ExitStack() as stack:
        contenders = {}
        for mode in MODES:
            found = service(*mode)
            stack.callback(found.close)
            holding = found._admission.keepers.holding()  # noqa: SLF001
            name = f"{holding.enforcement}, {'namespace' if holding.pid_namespace else 'subreaper'}"
            contenders[name] = ours(found)
        for _ in range(rounds):
            for name in ["posix_spawn", *contenders, "posix_spawn again"]:
                walls = []
                for _ in range(count):
                    start = time.perf_counter()
                    bare_start() if name.startswith("posix") else contenders[name][0]()
                    walls.append(time.perf_counter() - start)
                    if name.startswith("posix"):
                        os.waitpid(ended.pop(), 0)
                    else:
                        contenders[name][1]()
                rows.setdefault(name, []).append(statistics.median(walls) * 1e3)
    bare = statistics.median(rows["posix_spawn"])
    print("| | median | least to most | above posix_spawn |\n|---|---|---|---|")
    for name, found_ms in rows.items():
        middle = statistics.median(found_ms)
        print(f"| {name} | {middle:.2f} | {min(found_ms):.2f} to {max(found_ms):.2f} | {middle - bare:+.2f} |")


# --- whole runs


def runs(rounds: int, count: int) -> None:
    """Measure whole runs."""
    print("\n## A whole run of `true`, its output captured: ms wall, ms CPU of all processes\n")
    rows: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        contenders: dict[str, Callable[[], object]] = {
            "subprocess.run": lambda: subprocess.run([TRUE], capture_output=True, check=True),
            "a fresh launcher for each run": fresh,
        }
        for mode in MODES:
            found = service(*mode)
            stack.callback(found.close)
            holding = found._admission.keepers.holding()  # noqa: SLF001
            name = f"gaia, {holding.enforcement}, {'namespace' if holding.pid_namespace else 'subreaper'}"
            contenders[name] = lambda found=found: found.run(process.Run((TRUE,)), Scope.lasting(60))
        for _ in range(rounds):
            for name, act in contenders.items():
                rows.setdefault(name, []).append(timed(act, 20 if "fresh" in name else count))
    print("| | wall | CPU |\n|---|---|---|")
    for name, found_ms in rows.items():
        wall, cpu = (statistics.median(column) for column in zip(*found_ms, strict=True))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")


def fresh() -> None:
    """Run a program by a launcher of its own."""
    found = service("sampled", True)  # noqa: FBT003 - a row of the table
    try:
        found.run(process.Run((TRUE,)), Scope.lasting(60))
    finally:
        found.close()


# --- many that sleep


def sleepers(number: int, seconds: float) -> None:
    """Measure what holding programs costs."""
    print(f"\n## {number} sleeping programs held by one worker, {seconds:g} s\n")
    print("| | started in | CPU of the worker | CPU of launcher and keepers | together, of one core | RSS of keepers |")
    print("|---|---|---|---|---|---|")
    for mode in MODES:
        found = service(*mode)
        scope = Scope.lasting(600)
        try:
            began = time.perf_counter()
            for _ in range(number):
                found.start(process.Start((SLEEP, "300"), limits=Limits()), scope)
            took = time.perf_counter() - began
            time.sleep(3)
            keepers = [each for each in psutil.Process().children(recursive=True) if each.name().startswith("python")]
            pids = [each.pid for each in keepers]
            worker, others = exactly_s([os.getpid()]), exactly_s(pids)
            began = time.perf_counter()
            time.sleep(seconds)
            wall = time.perf_counter() - began
            worker, others = exactly_s([os.getpid()]) - worker, exactly_s(pids) - others
            resident = sum(each.memory_full_info().uss for each in keepers) / (1 << 20)
            holding = found._admission.keepers.holding()  # noqa: SLF001
            name = f"{holding.enforcement}, {'namespace' if holding.pid_namespace else 'subreaper'}"
            share = (worker + others) / wall
            print(
                f"| {name} | {took:.2f} s | {worker / wall:.2%} | {others / wall:.2%} | {share:.2%} "
                f"| {resident / len(pids):.1f} MiB each (unique) |",
                flush=True,
            )
        finally:
            found.close()


# --- through the queue


def queue(rounds: int, count: int) -> None:
    """Measure runs through the queue."""
    print(f"\n## {count} runs of `true` through the queue, one worker process, beside subprocess in one thread\n")
    rows: dict[str, list[tuple[float, float, float]]] = {}
    directory = Path(tempfile.mkdtemp(prefix="gaia-bench-"))
    try:
        with cluster.valkey(directory / "valkey") as url:
            for number in range(rounds):
                start, before = time.perf_counter(), own_s()
                for _ in range(count):
                    subprocess.run([TRUE], capture_output=True, check=True)
                rows.setdefault("subprocess.run", []).append(
                    (count / (time.perf_counter() - start), (own_s() - before) / count * 1e3, 0.0)
                )
                for enforcement in ("auto", "sampled"):
                    for threads in (8, 64, 208):
                        log = directory / f"{number}-{enforcement}-{threads}.log"
                        name = f"gaia, {enforcement}, concurrency {threads}"
                        rows.setdefault(name, []).append(_through(url, log, enforcement, threads, count))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("| | per second | CPU of worker, keepers and programs, ms a run | of the worker alone |\n|---|---|---|---|")
    for name, found in rows.items():
        rate, cpu, worker = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {rate:.0f} | {cpu:.2f} | {worker:.2f} |")


def _through(url: str, log: Path, enforcement: str, threads: int, count: int) -> tuple[float, float, float]:
    options = {"GAIA_PROCESS__EXECUTABLES": f'["{TRUE}"]', "GAIA_PROCESS__ENFORCEMENT": enforcement}
    argv = ("process", "--concurrency", str(threads))
    with cluster.worker(url, *argv, log=log, GAIA_WORKER__LOG_LEVEL="INFO", **options) as worker, Gaia(url) as g:
        for each in [g.submit(process.Run((TRUE,))) for _ in range(50)]:
            each.get(timeout=60)
        pids = [worker.process.pid, *(each.pid for each in psutil.Process(worker.process.pid).children(recursive=True))]
        before, alone, start = cpu_s(pids), exactly_s(pids[:1]), time.perf_counter()
        pending = g.submit_many([process.Run((TRUE,)) for _ in range(count)])
        for outcome in pending:
            if outcome.result is not None:
                outcome.result.get(timeout=120)
        took = time.perf_counter() - start
        return count / took, (cpu_s(pids) - before) / count * 1e3, (exactly_s(pids[:1]) - alone) / count * 1e3


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--only", choices=("starts", "runs", "sleepers", "queue"))
    given = parser.parse_args()
    print(
        f"python {sys.version.split()[0]}, kernel {os.uname().release}, {os.cpu_count()} cores, rounds {given.rounds}"
    )
    steps: dict[str, Callable[[], None]] = {
        "starts": lambda: starts(given.rounds, given.count),
        "runs": lambda: runs(given.rounds, given.count),
        "sleepers": lambda: sleepers(200, 10.0),
        "queue": lambda: queue(given.rounds, 5 * given.count),
    }
    for name, step in steps.items():
        if given.only in (None, name):
            step()


if __name__ == "__main__":
    main()

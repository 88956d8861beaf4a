"""Eight real processes at one limit, and what they were given together."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path

from tests.support.cluster import ROOT, clean_environ, stop
from tests.support.limits_process import DOUBLE

PROCESSES = 8


@contextmanager
def hammering(verb: str, url: str, directory: Path, seconds: float) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Run the processes; they end by themselves, at the latest with the block."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.limits_process", verb, url, directory / f"{number}", str(seconds)],
            cwd=ROOT,
            env=clean_environ(),
        )
        for number in range(PROCESSES)
    ]
    try:
        yield running
    finally:
        for each in running:
            stop(each)


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def admissions(directory: Path) -> tuple[float, list[float]]:
    """Give the monotonic time before the first process asked, and those of every admission, in order."""
    started, found = [], []
    for each in directory.iterdir():
        data = each.read_bytes()
        # A killed process may have cut its last one.
        first, *times = [at for (at,) in DOUBLE.iter_unpack(data[: len(data) // DOUBLE.size * DOUBLE.size])] or [inf]
        started.append(first)
        found += times
    return min(started), sorted(found)


def over_since(start: float, times: Sequence[float], rate_per_s: float, burst: float) -> float:
    """Give by how much the count since `start` passes rate * time + burst at most; 0 or less is within.

    Who is counted had leave before, and nobody had it before `start`: that holds however late one is counted.
    """
    return max((number + 1 - rate_per_s * (at - start) - burst for number, at in enumerate(times)), default=-burst)

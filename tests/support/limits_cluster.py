"""Eight real processes at one limit, and what they were given together."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


def admissions(directory: Path) -> list[float]:
    """Give the monotonic times of every admission, in order; a killed process may have cut its last one."""
    found = []
    for each in directory.iterdir():
        data = each.read_bytes()
        found += [at for (at,) in DOUBLE.iter_unpack(data[: len(data) // DOUBLE.size * DOUBLE.size])]
    return sorted(found)


def most_over(times: list[float], rate: float, burst: float) -> float:
    """Give by how much the count from the first on passed rate * time + burst at most; 0 or less is within."""
    return max((number + 1) - (rate * (at - times[0]) + burst) for number, at in enumerate(times))

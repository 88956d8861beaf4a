"""What ran: each worker process appends a line at every start and every end to a file of its own.

A line is one write to a file opened for appending: it is the kernel's once the call returns, so no signal to the
process can lose it, and it needs no server.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DIRECTORY = "CHAOS_LEDGER"
"""The variable that names the directory to a worker."""


@cache
def _file(pid: int) -> int:
    return os.open(Path(os.environ[DIRECTORY]) / f"{pid}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def note(what: str, number: int) -> None:
    os.write(_file(os.getpid()), f"{what} {number} {time.monotonic_ns()}\n".encode())


def perform(number: int, run_s: float) -> None:
    """Do the work of a call: note its start and its end."""
    note("start", number)
    if run_s:
        threading.Event().wait(run_s)
    note("end", number)


@dataclass(frozen=True)
class Runs:
    """Times of start and of end by call, monotonic seconds."""

    starts: Mapping[int, list[float]]
    ends: Mapping[int, list[float]]


def read(directory: Path) -> Runs:
    starts: defaultdict[int, list[float]] = defaultdict(list)
    ends: defaultdict[int, list[float]] = defaultdict(list)
    for path in directory.glob("*.log"):
        for line in path.read_text().splitlines():
            what, number, at_ns = line.split()
            (starts if what == "start" else ends)[int(number)].append(int(at_ns) / 1e9)
    return Runs(starts, ends)


def has_ended_one(directory: Path, pid: int) -> bool:
    """Say whether a worker has ended a call."""
    path = directory / f"{pid}.log"
    return path.exists() and b"end " in path.read_bytes()

"""1000 small writes in one batch, as 1000 tasks through one worker, and as a bare loop that no queue stands before."""

import functools
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from gaia import Gaia
from gaia.contracts import files
from tests.support import cluster

MANY = 1000
BODY = b"x" * 100
SORTS = {
    "durable, new files": {"new": True, "durable": True},
    "new files": {"new": True, "durable": False},
    "files that exist": {"new": False, "durable": False},
}


class Places:
    """Where the writes of a row go: a new directory each time, or the row's own, whose files are there."""

    def __init__(self) -> None:
        """Begin with none."""
        self._fresh = itertools.count()

    def of(self, row: str, *, new: bool) -> str:
        """Give the directory of a row's next writes."""
        return f"n{next(self._fresh)}" if new else f"old-{row.replace(' ', '-')}"


def bare(directory: Path, *, new: bool, durable: bool) -> None:
    """The system calls that such writes cannot do without, in one thread: the floor of the file system and the disk."""
    directory.mkdir(exist_ok=True)
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(MANY):
        name = str(number)
        if new:
            file = os.open(directory, os.O_WRONLY | os.O_TMPFILE, 0o644)
        else:
            file = os.open(f".{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=at)
        os.write(file, BODY)
        if durable:
            os.fsync(file)
        if new:
            os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=at, follow_symlinks=True)
        else:
            os.rename(f".{name}", name, src_dir_fd=at, dst_dir_fd=at)
        os.close(file)
    if durable:
        os.fsync(at)
    os.close(at)


def calls(place: str, *, durable: bool) -> list[files.Write]:
    """The writes of one row."""
    return [files.Write(f"data:{place}/{number}", BODY, durable=durable) for number in range(MANY)]


def as_batch(gaia: Gaia, writes: list[files.Write]) -> None:
    """Send them as one message."""
    found = gaia.submit(files.Batch.of(*writes)).get(timeout=60)
    assert not found.failed  # noqa: S101 - a failed one is no figure


def as_many(gaia: Gaia, writes: list[files.Write]) -> None:
    """Send a message each, together."""
    for each in gaia.submit_many(writes):
        each.unwrap().get(timeout=60)


def as_tasks(gaia: Gaia, writes: list[files.Write]) -> None:
    """Send a message each, one after the other."""
    for each in [gaia.submit(each) for each in writes]:
        each.get(timeout=60)


WAYS: dict[str, Callable[[Gaia, list[files.Write]], None]] = {
    "one batch": as_batch,
    "1000 tasks (submit_many)": as_many,
    "1000 tasks (submit)": as_tasks,
}


def measure(root: Path, rounds: int) -> None:
    """Run every row in turns, one kind of write after the other.

    What is made goes before what is replaced: ext4 without a journal passes over inodes that were freed in the last
    minutes one by one, so that after many deletions making a file costs several times as much.
    """
    places, rows = Places(), [*WAYS, "bare loop"]
    walls: dict[tuple[str, str], list[float]] = {each: [] for each in itertools.product(SORTS, rows)}
    cpus: dict[tuple[str, str], list[float]] = {each: [] for each in walls}
    with cluster.valkey(root / "valkey") as url, Gaia(url) as gaia:
        environ = {"GAIA_FILES__ROOTS": json.dumps({"data": str(root)})}
        with cluster.worker(url, "files", log=root / "worker.log", **environ) as worker:
            used = functools.partial(_used, psutil.Process(worker.process.pid))
            for row in rows:
                _run(gaia, root, places.of(row, new=False), row, new=False, durable=False)
            for (sort, options), _ in itertools.product(SORTS.items(), range(rounds)):
                for row in rows:
                    place = places.of(row, new=options["new"])
                    begun, before = time.perf_counter(), used()
                    _run(gaia, root, place, row, **options)
                    walls[sort, row].append(MANY / (time.perf_counter() - begun))
                    cpus[sort, row].append(MANY / (used() - before))
    _print(walls, cpus, rounds)


def _run(gaia: Gaia, root: Path, place: str, row: str, *, new: bool, durable: bool) -> None:
    if row in WAYS:
        WAYS[row](gaia, calls(place, durable=durable))
    else:
        bare(root / place, new=new, durable=durable)


def _used(worker: psutil.Process) -> float:
    return sum(worker.cpu_times()[:2]) + time.process_time()


def _print(walls: dict[tuple[str, str], list[float]], cpus: dict[tuple[str, str], list[float]], rounds: int) -> None:
    print(f"\n{MANY} writes of {len(BODY)} bytes ({rounds} rounds)\n")
    print("| | writes per second | per CPU-second, worker and producer | times the faster of 1000 tasks |")
    print("|---|---|---|---|")
    for sort in SORTS:
        many = max(statistics.median(walls[sort, row]) for row in WAYS if row != "one batch")
        for row in [*WAYS, "bare loop"]:
            wall, cpu = (statistics.median(each[sort, row]) for each in (walls, cpus))
            print(f"| {sort}; {row} | {wall:,.0f} | {cpu:,.0f} | {wall / many:.1f} |", flush=True)

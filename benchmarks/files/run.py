"""The files subsystem beside what it is measured against; figures on standard output.

    .venv/bin/python benchmarks/files/run.py [--only reads,walk,json,parse,queue,batch,writes] [--rounds N]
                                             [--json-bytes N]

Contenders take turns within each round; a cell is the median of the rounds, CPU (user and system, of the process that
does the work) before wall. The machine may be shared: compare CPU. Nothing is asserted.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import batch  # beside this file
import psutil

from gaia import Gaia
from gaia.contracts import files
from tasks.files.service import FilesService
from tasks.roots.roots import Roots
from tasks.scope import Scope
from tests.support import cluster

Row = Callable[[], int]
SCOPE = Scope.lasting(36_000)


def compare(title: str, unit: str, rows: dict[str, Row], rounds: int) -> None:
    """Run every row in turns; each gives how many units of work it did."""
    cpu: dict[str, list[float]] = {name: [] for name in rows}
    wall: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, row in rows.items():
            begun, used = time.perf_counter(), time.process_time()
            count = row()
            cpu[name].append(count / (time.process_time() - used))
            wall[name].append(count / (time.perf_counter() - begun))
    print(f"\n{title} ({rounds} rounds)\n")
    print(f"| | {unit} per CPU-second | from, to | per second |\n|---|---|---|---|")
    for name in rows:
        low, high = min(cpu[name]), max(cpu[name])
        print(
            f"| {name} | {statistics.median(cpu[name]):,.0f} | {low:,.0f}, {high:,.0f} "
            f"| {statistics.median(wall[name]):,.0f} |",
            flush=True,
        )


def reads(root: Path, rounds: int) -> None:
    """Small reads: through the service, and as a program would that confines nothing, or by realpath."""
    for number in range(100):
        (root / f"f{number}").write_bytes(b"x" * 1000)
    service = FilesService(roots=Roots({"data": root}))
    calls = [files.Read(f"data:f{number}") for number in range(100)]
    many = 20_000

    def ours() -> int:
        for number in range(many):
            service.read(calls[number % 100], SCOPE)
        return many

    def plain() -> int:
        for number in range(many):
            with open(f"{root}/f{number % 100}", "rb") as file:  # noqa: PTH123 - what most programs do
                file.read()
        return many

    def realpath() -> int:
        base = os.path.realpath(root)
        for number in range(many):
            path = os.path.realpath(f"{root}/f{number % 100}")
            assert os.path.commonpath((base, path)) == base  # noqa: S101 - the racy check that others do
            with open(path, "rb") as file:  # noqa: PTH123 - as above
                file.read()
        return many

    rows = {
        "files.read, confined, with its etag": ours,
        "open, read, close": plain,
        "realpath check, then open": realpath,
    }
    compare("1000-byte reads", "reads", rows, rounds)


def walk(root: Path, rounds: int) -> None:
    """A walk of 100 000 files in 1000 directories."""
    for directory in range(1000):
        place = root / f"d{directory % 10}" / f"e{directory}"
        place.mkdir(parents=True)
        for number in range(100):
            (place / f"file-{number}.txt").touch()
    service = FilesService(roots=Roots({"data": root}))

    def ours() -> int:
        return len(service.walk(files.Walk("data:", limit=100_000), SCOPE).paths)

    def scandir() -> int:
        heap, found = [str(root)], []
        while heap:
            with os.scandir(heap.pop()) as entries:
                for each in entries:
                    if each.is_dir(follow_symlinks=False):
                        heap.append(each.path)
                    else:
                        found.append(each.path)
        return len(found)

    def rglob() -> int:
        return sum(each.is_file() for each in root.rglob("*"))

    compare(
        "A walk of 100 000 files", "files", {"files.walk": ours, "os.scandir": scandir, "Path.rglob": rglob}, rounds
    )


def writes(root: Path, rounds: int) -> None:
    """Small writes, replaced and made anew, durable and not."""
    service = FilesService(roots=Roots({"data": root}))

    def write(*, durable: bool) -> Row:
        def run() -> int:
            for number in range(1000):
                service.write(files.Write(f"data:f{number % 100}", b"x" * 1000, durable=durable), SCOPE)
            return 1000

        return run

    def rename() -> int:
        for number in range(1000):
            (root / "tmp").write_bytes(b"x" * 1000)
            (root / "tmp").replace(root / f"g{number % 100}")
        return 1000

    rows = {
        "files.write": write(durable=True),
        "files.write, durable=False": write(durable=False),
        "write a temporary file, rename": rename,
    }
    compare("1000-byte writes over files that exist", "writes", rows, rounds)


def documents(root: Path, rounds: int) -> None:
    """A JSON document of about 7 MB as a whole, and an array of 20 MB in pages."""
    rows = [
        {"id": number, "name": f"name {number}", "tags": ["a", "b"], "value": number / 7} for number in range(80_000)
    ]
    small, large = root / "small.json", root / "large.json"
    small.write_bytes(json.dumps(rows).encode())
    large.write_bytes(json.dumps(rows * 3).encode())
    service = FilesService(roots=Roots({"data": root}))

    def whole() -> int:
        service.parse_json(files.ParseJson("data:small.json", "/79999/id"), SCOPE)
        return small.stat().st_size

    def stdlib() -> int:
        json.loads(small.read_bytes())[79_999]["id"]
        return small.stat().st_size

    def paged() -> int:
        _pages(service, "data:large.json", "item", 10_000)
        return large.stat().st_size

    def events() -> int:
        _pages(service, "data:large.json", "item.id", 100_000)
        return large.stat().st_size

    def ijson_items() -> int:
        import ijson

        with large.open("rb") as file:
            for _ in ijson.items(file, "item", use_float=True):
                pass
        return large.stat().st_size

    compared = {
        f"files.parse_json, {small.stat().st_size / 1e6:.0f} MB whole": whole,
        "json.loads, the same": stdlib,
        f"files.parse_json, array of {large.stat().st_size / 1e6:.0f} MB in pages": paged,
        "files.parse_json, the same by events (item.id)": events,
        "ijson.items, the same": ijson_items,
    }
    compare("JSON", "bytes", compared, rounds)


def _pages(service: Any, path: str, query: str, limit: int) -> int:
    count, cursor = 0, None
    while True:
        page = service.parse_json(files.ParseJson(path, query, limit=limit, cursor=cursor), SCOPE)
        count, cursor = count + len(page.items), page.cursor
        if cursor is None:
            return count


def giant(root: Path, size: int) -> None:
    """A JSON array of 1 GiB through a real worker, page after page; its memory beside that of the idle one."""
    path = root / "giant.json"
    row = json.dumps({"id": 0, "name": "n" * 60, "tags": ["x", "y", {"z": 1.5}], "text": "t" * 100}).encode()
    block = b",".join([row] * 5000)
    with path.open("wb") as file:
        file.write(b"[" + block)
        while file.tell() < size:
            file.write(b"," + block)
        file.write(b"]")
    with cluster.valkey(root / "valkey") as url, Gaia(url) as gaia:
        environ = {"GAIA_FILES__ROOTS": json.dumps({"data": str(root)})}
        with cluster.worker(url, "files", log=root / "worker.log", **environ) as worker:
            gaia.submit(files.Stat("data:giant.json")).get(timeout=60)
            process = psutil.Process(worker.process.pid)
            idle, peak, count, pages, cursor = process.memory_info().rss, 0, 0, 0, None
            begun, used = time.perf_counter(), sum(process.cpu_times()[:2])
            while True:
                call = files.ParseJson("data:giant.json", "item", limit=2000, cursor=cursor)
                page = gaia.submit(call).get(timeout=300)
                peak = max(peak, process.memory_info().rss)
                count, pages, cursor = count + len(page.items), pages + 1, page.cursor
                if cursor is None:
                    break
            took, cpu = time.perf_counter() - begun, sum(process.cpu_times()[:2]) - used
            high = int(Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    print(
        f"\nA JSON array of {path.stat().st_size / 2**30:.2f} GiB, {count:,} items in {pages:,} pages by the queue: "
        f"{took:.0f} s, worker {cpu:.0f} s CPU; idle worker {idle / 2**20:.0f} MiB, most seen {peak / 2**20:.0f} MiB, "
        f"high water {high / 2**20:.0f} MiB: {(high - idle) / 2**20:.0f} MiB above idle"
    )
    path.unlink()


def queue(root: Path, rounds: int) -> None:
    """500 operations in flight, half writes, half reads, by a worker of 10 threads and one of 500."""
    (root / "r").write_bytes(b"x" * 1000)
    print("\n500 operations in flight, half durable writes, half reads of 1000 bytes\n")
    print("| threads | operations | success | p50 ms | p99 ms | at once | per second |\n|---|---|---|---|---|---|---|")
    for threads in (10, 500):
        with cluster.valkey(root / f"valkey{threads}") as url, Gaia(url) as gaia:
            environ = {"GAIA_FILES__ROOTS": json.dumps({"data": str(root)}), "GAIA_WORKER__CONCURRENCY": str(threads)}
            with cluster.worker(url, "files", log=root / f"worker{threads}.log", **environ):
                gaia.submit(files.Stat("data:r")).get(timeout=60)
                good, took, begun = 0, [], time.perf_counter()
                for _ in range(rounds):
                    ok, times = _in_flight(gaia)
                    good, took = good + ok, took + times
                rate = len(took) / (time.perf_counter() - begun)
                peak = gaia.submit(files.Stats()).get(timeout=60).peak
        took.sort()
        print(
            f"| {threads} | {len(took):,} | {100 * good / len(took):.1f} % | {1000 * took[len(took) // 2]:.0f} "
            f"| {1000 * took[int(len(took) * 0.99)]:.0f} | {peak} | {rate:,.0f} |",
            flush=True,
        )


def _in_flight(gaia: Gaia) -> tuple[int, list[float]]:
    """Keep 500 in flight: each is submitted as one before it ends, 2000 in all."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    took: list[float] = []
    lock = threading.Lock()

    def one(number: int) -> bool:
        call: Any = files.Read("data:r") if number % 2 else files.Write(f"data:w{number % 200}", b"x" * 1000)
        begun = time.perf_counter()
        try:
            gaia.submit(call).get(timeout=120)
        except Exception:  # noqa: BLE001 - what it is counts as a failure
            return False
        with lock:
            took.append(time.perf_counter() - begun)
        return True

    with ThreadPoolExecutor(500) as pool:
        good = sum(pool.map(one, range(2000)))
    return good, took


def main() -> None:
    """Measure what is asked for."""
    kinds: dict[str, Callable[[Path, int], None]] = {
        "reads": reads, "batch": batch.measure, "queue": queue, "walk": walk, "writes": writes, "parse": documents,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join([*kinds, "json"]))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json-bytes", type=int, default=1 << 30)
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout  # noqa: S607 - the one on the PATH
    print(f"Commit {commit.strip()}, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs")
    for name in options.only.split(","):
        root = Path(tempfile.mkdtemp(prefix=f"files-{name}-"))
        try:
            if name == "json":
                giant(root, options.json_bytes)
            else:
                kinds[name](root, options.rounds)
        finally:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()

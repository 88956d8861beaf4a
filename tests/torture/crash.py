"""A worker is killed at random instants while it writes; afterwards every write that was acknowledged is whole."""

import json
import random
import secrets
import threading
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Self

from gaia import Gaia
from gaia.contracts import files
from gaia.errors import GaiaError
from tests.support import cluster
from tests.support.waiting import until

SIZES = (0, 10, 5_000, 60_000, 300_000, 2_000_000)


@dataclass
class Crashed:
    """What was written, and what was found."""

    writes: int = 0
    acknowledged: int = 0
    failed: int = 0
    kills: int = 0
    took_s: float = 0.0
    broken: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    left_before_start: int = 0


class _Kills:
    """Kills the worker once after each portion of writes was queued, at a random instant, and starts another."""

    def __init__(self, url: str, logs: Path, environ: dict[str, str], chance: random.Random) -> None:
        self._url = url
        self._logs = logs
        self._environ = environ
        self._chance = chance
        self._queued = threading.Semaphore(0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._queued.release()
        self._thread.join(120)

    def one(self) -> None:
        """Let the worker be killed, and wait until it was."""
        before = self.count
        self._queued.release()
        until(lambda: self.count > before, 60, what="a kill")

    def _run(self) -> None:
        while not self._ended.is_set():
            with cluster.worker(self._url, "files", log=self._logs / f"{self.count}.log", **self._environ) as worker:
                self._queued.acquire(timeout=600)
                if not self._ended.wait(self._chance.uniform(0.0, 0.25)):
                    worker.process.kill()
                    worker.process.wait(30)
                    self.count += 1


def run(directory: Path, url: str, *, writes: int, kills: int, seed: int = 0) -> Crashed:
    """Write through the queue while workers are killed, then start one more and look at the root."""
    root, logs = directory / "root", directory / "logs"
    root.mkdir()
    logs.mkdir()
    found, begun = Crashed(writes=writes), time.monotonic()
    environ = {
        "GAIA_FILES__ROOTS": json.dumps({"data": str(root)}),
        # A call may lose its worker more often than three times: none of them is what kills it.
        "GAIA_WORKER__DELIVERY_CAP": "100",
    }
    with Gaia(url) as gaia:
        with _Kills(url, logs, environ, random.Random(seed)) as killing:
            expected = _write(gaia, random.Random(seed), kills, killing, found)
        found.kills = killing.count
        _compare(gaia, root, expected, found)
    found.left_before_start = len(list(root.glob(".gaia/drafts/*")))
    with cluster.worker(url, "files", log=logs / "last.log", **environ):
        found.left = [str(each.relative_to(root)) for each in root.rglob(".*.gaia")]
    found.took_s = round(time.monotonic() - begun, 1)
    return found


def _write(gaia: Gaia, chance: random.Random, kills: int, killing: _Kills, found: Crashed) -> dict[str, set[str]]:
    """Write over few names, so that most writes take another's place; give what each may hold."""
    sums: dict[str, set[str]] = {}
    pendings = []
    portion = max(1, found.writes // (kills + 1))
    for number in range(found.writes):
        body = secrets.token_bytes(chance.choice(SIZES))
        path, tag = f"data:d{number % 5}/f{number % 40}", sha256(body).hexdigest()
        sums.setdefault(path, set()).add(tag)
        pendings.append((path, tag, gaia.submit(files.Write(path, body), deadline=600)))
        if (number + 1) % portion == 0 and killing.count < kills:
            killing.one()
    for path, tag, pending in pendings:
        try:
            written = pending.get(timeout=300)
        except GaiaError as error:
            found.failed += 1
            found.broken.append(f"{path}: {error}")
            continue
        found.acknowledged += 1
        if written.etag != tag:
            found.broken.append(f"{path}: acknowledged as {written.etag}")
    return sums


def _compare(gaia: Gaia, root: Path, expected: dict[str, set[str]], found: Crashed) -> None:
    """Look for a file that is missing, or is none of those that were written there."""
    until(lambda: gaia.queues.sizes()["files"].waiting == 0, what="an empty queue")
    for path, sums in expected.items():
        place = root / path.partition(":")[2]
        if not place.exists():
            found.broken.append(f"{path} is missing")
        elif sha256(place.read_bytes()).hexdigest() not in sums:
            found.broken.append(f"{path} holds what nobody wrote")

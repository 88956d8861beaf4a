"""The field of one row: a server, workers, producers, and the account of every call."""

import itertools
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import redis

from gaia import Gaia
from gaia.contracts.base import Call
from gaia.errors import GaiaError
from gaia.store import keys
from tests.chaos import ledger
from tests.chaos.operation import QUEUES, Mark
from tests.chaos.proxy import Proxy
from tests.chaos.server import Server
from tests.chaos.workers import Worker
from tests.support.waiting import until

MakeCall = Callable[[int], tuple[Call[Any], int]]
"""Number to call and priority."""

STANDSTILL_S = 70.0
"""Settling gives up when nothing ended for so long: above every bound that a row promises."""


@dataclass
class Account:
    """What came of the calls of a row."""

    row: str
    submitted: int = 0
    uncertain: int = 0
    """Submit raised an error: the call may be queued or not."""
    faults: int = 0
    lost: int = 0
    """Certainly queued, never ended, and no dead letter either: vanished."""
    dead: int = 0
    """Never ended, kept as dead letters. The calls are all innocent, so this should be none, too."""
    unanswered: int = 0
    """Ended, but no result is stored."""
    repeated: int = 0
    """Calls that started more than once."""
    extra_starts: int = 0
    extra_ends: int = 0
    """Of the extra runs, those of calls that had ended: the rest were cut off while they ran, and had to run again."""
    late: int = 0
    """Ended more than `bound_s` after they were submitted, or after the last fault."""
    slowest_s: float = 0.0
    bound_s: float = 0.0
    took_s: float = 0.0
    left: dict[str, int] = field(default_factory=dict)
    """What still lies in Redis when all is done, and should not."""
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def short_call(number: int) -> tuple[Call[Any], int]:
    """Give a call of 0 to 8 ms, for a queue that is full from the start."""
    return Mark(number, run_s=(number % 5) * 0.002), 0


def steady_call(number: int) -> tuple[Call[Any], int]:
    """Give a call of 0 to 80 ms: a hundred a second keep two workers half busy."""
    return Mark(number, run_s=(number % 5) * 0.02), 0


class Field:
    """Everything a row needs; leaving it ends every process."""

    def __init__(self, row: str, directory: Path, *, appendfsync: str = "always", bound_s: float = 15.0) -> None:
        self.account = Account(row, bound_s=bound_s)
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self.server = self._stack.enter_context(Server(directory / "redis", appendfsync))
        self.workers: list[Worker] = []
        self._began = time.monotonic()
        self._calm_at = 0.0
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._submitted: dict[int, tuple[str, float]] = {}
        self._uncertain: set[int] = set()
        self._producers: list[threading.Thread] = []
        self._stop_producing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_producing.set()
        for thread in self._producers:
            thread.join(60)
        for worker in self.workers:
            worker.kill()
        self._stack.close()

    # --- parts

    def proxy(self) -> Proxy:
        return self._stack.enter_context(Proxy(self.server.port))

    def worker(self, kind: str = "ours", *, url: str | None = None, queues: Sequence[str] = QUEUES[:1]) -> Worker:
        found = Worker(kind, url or self.server.url, queues, self.directory)
        self.workers.append(found)
        return found

    @property
    def living(self) -> list[Worker]:
        return [each for each in self.workers if each.alive]

    # --- load

    def preload(self, count: int, make: MakeCall = short_call) -> None:
        """Queue that many at once."""
        with Gaia(self.server.url) as gaia:
            numbers = [next(self._numbers) for _ in range(count)]
            outcomes = gaia.submit_many([make(each)[0] for each in numbers])
            for number, outcome in zip(numbers, outcomes, strict=True):
                self._enter(number, outcome.result.id if outcome.result else None)

    def produce(self, count: int, rate_per_s: float, *, url: str | None = None, make: MakeCall = steady_call) -> None:
        """Queue that many in the background, evenly."""
        arguments = (count, rate_per_s, url or self.server.url, make)
        thread = threading.Thread(target=self._produce, args=arguments, name="producer", daemon=True)
        self._producers.append(thread)
        thread.start()

    @property
    def producing(self) -> bool:
        return any(each.is_alive() for each in self._producers)

    def _produce(self, count: int, rate_per_s: float, url: str, make: MakeCall) -> None:
        begun = time.monotonic()
        with Gaia(url) as gaia:
            for done in range(count):
                self._stop_producing.wait(max(0.0, begun + done / rate_per_s - time.monotonic()))
                if self._stop_producing.is_set():
                    return
                number = next(self._numbers)
                call, priority = make(number)
                try:
                    self._enter(number, gaia.submit(call, priority=priority).id)
                except GaiaError:
                    self._enter(number, None)

    def _enter(self, number: int, call_id: str | None) -> None:
        with self._lock:
            if call_id is None:
                self._uncertain.add(number)
            else:
                self._submitted[number] = (call_id, time.monotonic())

    # --- faults and the end

    def fault(self) -> None:
        """Count one."""
        self.account.faults += 1
        self._calm_at = time.monotonic()

    def settle(self, workers: int = 2, kind: str = "ours", queues: Sequence[str] = QUEUES[:1]) -> Account:
        """Let healthy workers end the rest; give the account."""
        for thread in self._producers:
            thread.join(600)
        self._calm_at = max(self._calm_at, time.monotonic() if self.account.faults else 0.0)
        self.account.notes += self.fallen()
        while len(self.living) < workers:
            self.worker(kind, queues=queues)
        self._await_end()
        self._judge()
        codes = [each.stop() for each in self.living]
        if any(codes):
            self.account.notes.append(f"exit codes {codes}")
        self.account.left = leftovers(self.server.client)
        self.account.took_s = round(time.monotonic() - self._began, 1)
        return self.account

    def fallen(self) -> list[str]:
        """Tell of the workers that ended though nobody killed or stopped them."""
        ended = [each for each in self.workers if not each.alive and not each.is_to_end]
        return [f"worker {each.pid} ended: {each.log.read_text()[-500:]}" for each in ended]

    def _await_end(self) -> None:
        """Wait for every call; stop when nothing ended for a while."""
        ended, since = -1, time.monotonic()
        pause = threading.Event()
        while time.monotonic() - since < STANDSTILL_S:
            ends = ledger.read(self.directory).ends
            if len(ends) > ended:
                ended, since = len(ends), time.monotonic()
            if not held(self.server.client) and not self._count_missing(ends.keys()):
                return
            pause.wait(0.25)
        self.account.notes.append(f"nothing ended for {STANDSTILL_S:g} s")

    def _count_missing(self, ended: Collection[int]) -> int:
        missing = [number for number in self._submitted if number not in ended]
        return len(missing) - self._count_dead(missing[:200])

    def _judge(self) -> None:
        runs, account = ledger.read(self.directory), self.account
        account.submitted, account.uncertain = len(self._submitted), len(self._uncertain)
        lost = [number for number in self._submitted if number not in runs.ends]
        account.dead = self._count_dead(lost)
        account.lost = len(lost) - account.dead
        account.repeated = sum(len(starts) > 1 for starts in runs.starts.values())
        account.extra_starts = sum(len(starts) - 1 for starts in runs.starts.values())
        account.extra_ends = sum(len(ends) - 1 for ends in runs.ends.values())
        waits = [
            min(runs.ends[number]) - max(at, self._calm_at)
            for number, (_, at) in self._submitted.items()
            if number in runs.ends
        ]
        account.slowest_s = round(max([0.0, *waits]), 2)
        account.late = sum(each > account.bound_s for each in waits)
        account.unanswered = self._count_unanswered([number for number in self._submitted if number in runs.ends])

    def _count_unanswered(self, numbers: Sequence[int]) -> int:
        client, missing = self.server.client, 0
        for start in range(0, len(numbers), 1000):
            ids = [self._submitted[number][0] for number in numbers[start : start + 1000]]
            missing += sum(each is None for each in client.mget([keys.result(each) for each in ids])) if ids else 0
        return missing

    def _count_dead(self, numbers: Sequence[int]) -> int:
        client = self.server.client
        return sum(bool(client.exists(keys.dead_letter(self._submitted[number][0]))) for number in numbers)


def held(client: "redis.Redis") -> int:
    """Count the messages that somebody holds, and records of ours that a stock worker left behind."""
    try:
        return int(client.hlen("unacked")) + int(client.hlen(keys.HELD))
    except redis.RedisError:
        return -1


EXPECTED = (b"_kombu.", b"gaia:sweep", b"gaia:dead", b"gaia:nodes")


def leftovers(client: "redis.Redis") -> dict[str, int]:
    """Count what has no time to live and is no record that is meant to stay, by the beginning of its name."""
    found: dict[str, int] = {}
    for name in client.scan_iter("*", count=1000):
        if name.startswith(EXPECTED) or client.ttl(name) != -1:
            continue
        group = name.decode(errors="replace").partition("-")[0][:40]
        found[group] = found.get(group, 0) + 1
    return found


def wait_until_idle(client: "redis.Redis", timeout_s: float = 45) -> None:
    """Wait until no message is held and no list of ours holds one."""
    until(lambda: not held(client) and not any(client.llen(each) for each in QUEUES), timeout_s, what="idle queues")


def wait_until_held(client: "redis.Redis", count: int) -> None:
    """Wait until that many messages are held."""
    until(lambda: client.hlen("unacked") == count, 30, what=f"{count} calls held")

"""One soak: warm-up, rest, steady load, rest, verdict."""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import leaks, scenes
from tests.soak.field import THREADS, Field, running
from tests.soak.judgement import Row, judge
from tests.soak.keyspace import SERVER_MEMORY
from tests.soak.load import Load
from tests.soak.samples import Sample
from tests.soak.scenery import scenery
from tests.support.waiting import until

QUEUES = ("api", "files", "process", "network", "browser")
RATES_PER_S = {"api": 8.0, "files": 8.0, "process": 3.0, "network": 6.0, "browser": 2.0, leaks.QUEUE: 4.0}
"""Calls: together they keep two cores half busy."""

AT_ONCE = 2
"""Scenes of a queue at a time: less than its worker's threads."""

ROUNDS = 2
WARM_UP_BOUND_S = 180.0
LEAST_REST_S = 1.0
QUIET_S = 13.0
"""Leases lapse after ten seconds, keepers end after ten: what has not moved for longer stays."""

MOST_REST_S = 90.0


@dataclass
class Verdict:
    """What came of a steady phase."""

    rows: Sequence[Row]
    failures: list[str]
    minutes: float
    calls: dict[str, int] = field(default_factory=dict)
    restarted: bool = False

    @property
    def leaks(self) -> list[Row]:
        return [each for each in self.rows if each.leaks]


class Soak:
    """A cluster, its load, and the last moment of rest."""

    def __init__(self, cluster: Field, load: Load, quiet_s: float) -> None:
        self.field = cluster
        self.load = load
        self._quiet_s = quiet_s
        self._at_rest: Sample | None = None

    def warm_up(self, rounds: int = ROUNDS) -> None:
        """Fill every pool and cache: each scene so many times, many at once and without a pause; then rest."""
        self.load.start(hurried=True)
        until(lambda: self.load.played_least() >= rounds, WARM_UP_BOUND_S, what="a round of every scene")
        self.load.pause()
        # One browser scene plays at a time, so pools are not full yet.
        calls = [call for call in scenes.quick_calls(self.field.scenery) for _ in range(3 * THREADS)]
        for each in [self.field.gaia.submit(call) for call in calls]:
            each.get(WARM_UP_BOUND_S)
        self._at_rest = self._rest(None, patient=False)

    def steady(self, seconds: float, pause_s: float, rounds: int = 1, *, patient: bool = True) -> Verdict:
        """Load the cluster for so long, and until each scene was played so often; look meanwhile, judge at rest."""
        before = self._at_rest
        assert before is not None, "it is cold"
        during: list[Sample] = []
        began, tick = time.monotonic(), threading.Event()
        played = self.load.played_least()
        self.load.start()
        while time.monotonic() < began + seconds or self.load.played_least() < played + rounds:
            tick.wait(pause_s)
            during.append(self.field.look(self.load.calls, all_of_it=False))
        self.load.pause()
        self._at_rest = self._rest(before, patient=patient)
        calls = {queue: count - before.calls.get(queue, 0) for queue, count in self.load.calls.items()}
        rows = judge(before, during, self._at_rest)
        return Verdict(rows, self.load.failures, (time.monotonic() - began) / 60, calls, not self.field.same())

    def _rest(self, before: Sample | None, *, patient: bool) -> Sample:
        """Wait until nothing is over what it was, or for the longest time; give that moment.

        Whoever is not patient, or has nothing to compare with, waits until nothing has moved for a while.
        """
        began = moved = time.monotonic()
        counts: dict[str, float] = {}
        tick = threading.Event()
        while True:
            tick.wait(LEAST_REST_S)
            now = time.monotonic()
            sample = self.field.look(self.load.calls, all_of_it=True)
            found = {str(name): value for name, value in sample.values.items() if not str(name).endswith("bytes")}
            if found != counts:
                counts, moved = found, now
            # The server's memory holds the results still.
            clean = before is not None and not any(
                each.leaks and each.quantity != SERVER_MEMORY for each in judge(before, (), sample)
            )
            quiet = not patient and now - moved >= self._quiet_s
            if clean or quiet or now - began >= MOST_REST_S:
                # Counted with the keys of the calls; the memory without them, so that it can be compared.
                self.field.end_lives()
                last = self.field.look(self.load.calls, all_of_it=True)
                memory = {name: value for name, value in last.values.items() if str(name).endswith("bytes")}
                return Sample(sample.calls, {**sample.values, **memory})


@contextmanager
def soaking(only: Sequence[str] = QUEUES, rate: float = 1.0, quiet_s: float = QUIET_S) -> Iterator[Soak]:
    """Run a cluster and its load; all of it has gone at the end."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        # Beneath it lie the profiles of Chromium, which runs under another user.
        directory.chmod(0o711)
        with scenery(directory) as outside, running(outside) as cluster:
            decks = scenes.decks(outside, cluster.kill_browsers, only) | {leaks.QUEUE: leaks.deck(("nothing",))}
            rates = {queue: RATES_PER_S[queue] * rate for queue in decks}
            with Load(cluster.gaia, decks, rates, AT_ONCE) as load:
                yield Soak(cluster, load, quiet_s)

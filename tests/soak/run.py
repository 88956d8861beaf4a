"""One soak: warm-up, rest, steady load, rest, verdict."""

import math
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
CROWD = 3 * THREADS
WARM_UP_BOUND_S = 180.0
PAUSE_BOUND_S = 180.0
LATE_BOUND_S = 600.0
"""For every scene to be played once more when the time of a steady phase is over."""

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

    def __init__(self, cluster: Field, load: Load, quiet_s: float, ends_at: float) -> None:
        self.field = cluster
        self.load = load
        self._quiet_s = quiet_s
        self._ends_at = ends_at
        self._at_rest: Sample | None = None

    def warm_up(self, rounds: int = ROUNDS) -> None:
        """Fill every pool and cache: each scene so many times, many at once and without a pause; then rest.

        In between comes a crowd of quick calls of each queue.
        """
        self.load.start(hurried=True)
        bound_s = self._bounded(WARM_UP_BOUND_S)
        until(lambda: min(self.load.rounds().values()) >= rounds, bound_s, what="a round of every scene")
        self.load.pause(self._bounded(PAUSE_BOUND_S))
        # One browser scene plays at a time, so pools are not full yet.
        calls = [call for call in scenes.quick_calls(self.field.scenery) for _ in range(CROWD)]
        for each in [self.field.gaia.submit(call) for call in calls]:
            each.get(self._bounded(WARM_UP_BOUND_S))
        self._rest(None)

    def steady(
        self, seconds: float, pause_s: float, rounds: Mapping[str, int] | None = None, lost: Collection[str] = ()
    ) -> Verdict:
        """Load the cluster for so long, and until each scene was played once; look meanwhile, judge at rest.

        Those of a queue in `rounds` are to be played so often. What is `lost` is not waited for.
        """
        before = self._at_rest
        assert before is not None, "it is cold"
        during: list[Sample] = []
        began, tick = time.monotonic(), threading.Event()
        wanted = {queue: count + (rounds or {}).get(queue, 1) for queue, count in self.load.rounds().items()}
        self.load.start()
        latest = began + self._bounded(seconds + LATE_BOUND_S)
        while time.monotonic() < began + seconds or any(
            count < wanted[queue] for queue, count in self.load.rounds().items()
        ):
            assert time.monotonic() < latest, f"a scene was not played often enough: {self.load.played}"
            tick.wait(pause_s)
            during.append(self.field.look(self.load.calls, all_of_it=False))
        self.load.pause(self._bounded(PAUSE_BOUND_S))
        after = self._rest(before, lost)
        calls = {queue: count - before.calls.get(queue, 0) for queue, count in self.load.calls.items()}
        rows = judge(before, during, after)
        return Verdict(rows, self.load.failures, (time.monotonic() - began) / 60, calls, not self.field.same())

    def _rest(self, before: Sample | None, lost: Collection[str] = ()) -> Sample:
        """Wait until nothing is over what it was, or for the longest time; give that moment, with the calls' keys.

        The next phase is compared with the moment after it, without those keys: what it leaves is all its own. Whoever
        has nothing to compare with waits until nothing has moved for a while.
        """
        began = moved = time.monotonic()
        most_s = self._bounded(MOST_REST_S)
        counts: dict[str, float] = {}
        tick = threading.Event()
        while True:
            tick.wait(min(LEAST_REST_S, self._quiet_s / 2))
            now = time.monotonic()
            sample = self.field.look(self.load.calls, all_of_it=True)
            found = {str(name): value for name, value in sample.values.items() if not str(name).endswith("bytes")}
            if found != counts:
                counts, moved = found, now
            if before is None:
                still = now - moved >= self._quiet_s
            else:
                # The server's memory holds the results still.
                left = {str(each.quantity) for each in judge(before, (), sample) if each.leaks}
                still = left <= {str(SERVER_MEMORY), *lost}
            if still or now - began >= most_s:
                self.field.end_lives()
                last = self._at_rest = self.field.look(self.load.calls, all_of_it=True)
                # The memory without the keys, so that it can be compared.
                memory = {name: value for name, value in last.values.items() if str(name).endswith("bytes")}
                return replace(sample, values={**sample.values, **memory})

    def _bounded(self, bound_s: float) -> float:
        """Give the bound of a wait, or what is left of the time for all of it."""
        return max(0.0, min(bound_s, self._ends_at - time.monotonic()))


@contextmanager
def soaking(
    only: Sequence[str] = QUEUES, rate: float = 1.0, quiet_s: float = QUIET_S, within_s: float = math.inf
) -> Iterator[Soak]:
    """Run a cluster and its load, for so long at most; all of it has gone at the end."""
    ends_at = time.monotonic() + within_s
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        # Beneath it lie the profiles of Chromium, which runs under another user.
        directory.chmod(0o711)
        with scenery(directory) as outside, running(outside) as cluster:
            decks = scenes.decks(outside, only) | {leaks.QUEUE: leaks.deck(("nothing",))}
            rates = {queue: RATES_PER_S[queue] * rate for queue in decks}
            with Load(cluster.gaia, decks, rates, AT_ONCE) as load:
                yield Soak(cluster, load, quiet_s, ends_at)

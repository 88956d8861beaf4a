"""What the calls of each operation do and cost: the figures that every run changes.

A run costs two locks and two looks at the thread's CPU clock, and no more; four metrics of prometheus_client alone took
four times as long as all of it.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

OUTCOMES: Final = ("ok", "error", "later", "handed_back")

RUN_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
WAIT_BUCKETS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800)


class Meters:
    """The calls of one operation: how many run, how they ended, waited and ran, what they cost. Thread-safe."""

    __slots__ = (
        "_lock",
        "cpu_s",
        "ended",
        "received_bytes",
        "run_s",
        "running",
        "runs",
        "sent_bytes",
        "wait_s",
        "waits",
    )

    def __init__(self) -> None:
        """Start at nothing."""
        self._lock = threading.Lock()
        self.running = self.received_bytes = self.sent_bytes = 0
        self.ended = dict.fromkeys(OUTCOMES, 0)
        self.runs = [0] * (len(RUN_BUCKETS) + 1)
        self.waits = [0] * (len(WAIT_BUCKETS) + 1)
        self.run_s = self.wait_s = self.cpu_s = 0.0

    def begin(self, received_bytes: int = 0) -> None:
        """Count a run that begins, and what its message weighs."""
        with self._lock:
            self.running += 1
            self.received_bytes += received_bytes

    def waited(self, seconds: float) -> None:
        """Count how long a call had waited."""
        with self._lock:
            self.waits[bisect_left(WAIT_BUCKETS, seconds)] += 1
            self.wait_s += seconds

    def worked(self, cpu_s: float) -> None:
        """Count CPU time that another thread used for a call, or for several."""
        with self._lock:
            self.cpu_s += cpu_s

    def moved(self, *, received_bytes: int = 0, sent_bytes: int = 0) -> None:
        """Count bytes that go beside a message or a result."""
        with self._lock:
            self.received_bytes += received_bytes
            self.sent_bytes += sent_bytes

    def end(self, outcome: str, seconds: float, cpu_s: float = 0.0, sent_bytes: int = 0) -> None:
        """Count a run that has ended in one of `OUTCOMES`, the CPU time of its thread, and what its result weighs."""
        with self._lock:
            self.running -= 1
            self.ended[outcome] += 1
            self.runs[bisect_left(RUN_BUCKETS, seconds)] += 1
            self.run_s += seconds
            self.cpu_s += cpu_s
            self.sent_bytes += sent_bytes


_meters: Final[dict[str, Meters]] = {}


@cache
def meters(operation: str) -> Meters:
    """Give the meters of an operation, which show from now on."""
    return _meters.setdefault(operation, Meters())


class Calls(Collector):
    """The metrics that `Meters` are."""

    def describe(self) -> Iterable[Metric]:
        """Name them."""
        return _families()

    def collect(self) -> Iterable[Metric]:
        """Read them all."""
        families = operations, running, runs, waits, *costs = _families()
        for name, each in list(_meters.items()):
            for outcome, count in list(each.ended.items()):
                operations.add_metric([name, outcome], count)
            running.add_metric([name], each.running)
            runs.add_metric([name], _cumulated(RUN_BUCKETS, each.runs), each.run_s)
            waits.add_metric([name], _cumulated(WAIT_BUCKETS, each.waits), each.wait_s)
            for family, figure in zip(costs, (each.cpu_s, each.received_bytes, each.sent_bytes), strict=True):
                family.add_metric([name], figure)
        return families


def _families() -> tuple[Any, ...]:
    def of(kind: Callable[..., Metric], name: str, text: str, *more: str) -> Metric:
        return kind(name, text, labels=["operation", *more])

    return (
        of(CounterMetricFamily, "gaia_operations", "Runs, by how they ended.", "outcome"),
        of(GaugeMetricFamily, "gaia_operations_running", "Calls running now."),
        of(HistogramMetricFamily, "gaia_operation_seconds", "How long a run took."),
        of(
            HistogramMetricFamily,
            "gaia_queue_wait_seconds",
            "From submit to the start of the first run, for calls that say when they were submitted; clocks of two "
            "machines may differ.",
        ),
        of(
            CounterMetricFamily,
            "gaia_operation_cpu_seconds",
            "CPU time of the threads of this process that worked for the runs, told as each ends; docs/monitoring.md "
            "says of which.",
        ),
        of(
            CounterMetricFamily,
            "gaia_operation_received_bytes",
            "Bytes of the messages of the runs, and of the large bodies that were fetched for them.",
        ),
        of(
            CounterMetricFamily,
            "gaia_operation_sent_bytes",
            "Bytes of the results of the runs, and of the large bodies that were stored for them.",
        ),
    )


def _cumulated(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Give buckets as Prometheus has them: each counts what is in the lower ones, too."""
    total, found = 0, []
    for bound, count in zip((*bounds, math.inf), counts, strict=True):
        total += count
        found.append((floatToGoString(bound), float(total)))  # type: ignore[no-untyped-call]  # prometheus_client
    return found

"""How many operations run at once, and what became of them: the gate, the counters and gauges of one process.

They live in this process's memory and end with it; Prometheus sees the same numbers (`tasks.metrics`).
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from gaia.contracts import files
from gaia.errors import PoolExhausted
from tasks import metrics
from tasks.scope import Scope

WAIT_S: Final = 30.0
"""An operation waits no longer at the gate, nor past its deadline."""

KEPT: Final = 1024
"""Latencies of which the quantiles are."""


@dataclass
class _Tally:
    """Of one operation."""

    successes: int = 0
    errors: int = 0
    total_s: float = 0.0
    slowest_s: float = 0.0


@dataclass
class _Totals:
    successes: int = 0
    errors: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    latencies: "deque[float]" = field(default_factory=lambda: deque(maxlen=KEPT))
    by_operation: "dict[str, _Tally]" = field(default_factory=dict)


class Meter:
    """The gate that operations pass, `limit` at once. Thread-safe."""

    def __init__(self, limit: int) -> None:
        """Start with nothing counted."""
        self.limit = limit
        # A plain lock: the way through an open gate is a part of what a small read costs.
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._active = self._peak = self._waiting = 0
        self._totals = _Totals()
        metrics.FILES_ACTIVE.watch(self.active)
        metrics.FILES_PEAK.watch(self.peak)
        metrics.FILES_WAITING.watch(self.waiting)
        metrics.FILES_LIMIT.watch(self.most)

    def operation(self, name: str, scope: Scope) -> "Passage":
        """Give the context manager of one operation; entering it waits for the gate.

        Raises:
            PoolExhausted: when the gate was full for half a minute.
            Cancelled, DeadlineExceeded
        """
        return Passage(self, name, scope)

    def stats(self, worker: str, roots: tuple[files.RootState, ...]) -> files.FileStats:
        """Give every number."""
        with self._lock:
            totals = self._totals
            latencies = sorted(totals.latencies)
            rows = tuple(
                files.OperationStats(
                    operation=name,
                    successes=each.successes,
                    errors=each.errors,
                    total_s=round(each.total_s, 6),
                    slowest_s=round(each.slowest_s, 6),
                )
                for name, each in sorted(totals.by_operation.items())
            )
            return files.FileStats(
                worker=worker,
                operations=totals.successes + totals.errors,
                successes=totals.successes,
                errors=totals.errors,
                read_bytes=totals.read_bytes,
                written_bytes=totals.written_bytes,
                active=self._active,
                peak=self._peak,
                waiting=self._waiting,
                limit=self.limit,
                latency_p50_s=metrics.quantile(latencies, 0.5),
                latency_p95_s=metrics.quantile(latencies, 0.95),
                by_operation=rows,
                roots=roots,
            )

    def active(self) -> int:
        """Give how many operations are past the gate."""
        return self._active

    def peak(self) -> int:
        """Give the most that were."""
        return self._peak

    def waiting(self) -> int:
        """Give how many wait at it."""
        return self._waiting

    def most(self) -> int:
        """Give how many it lets through at once."""
        return self.limit

    @property
    def full(self) -> bool:
        """Say whether the next operation would wait."""
        return self._active >= self.limit

    def enter(self, scope: Scope) -> None:
        """Pass the gate."""
        with self._lock:
            if self._active >= self.limit:
                self._wait(scope)
            self._active += 1
            self._peak = max(self._peak, self._active)

    def leave(self) -> None:
        """Give the place at the gate back."""
        with self._lock:
            self._active -= 1
            if self._waiting:
                self._condition.notify()

    def record(self, name: str, took_s: float, *, ok: bool, read_bytes: int = 0, written_bytes: int = 0) -> None:
        """Say how an operation has ended."""
        with self._lock:
            totals = self._totals
            tally = totals.by_operation.get(name)
            if tally is None:
                tally = totals.by_operation[name] = _Tally()
            if ok:
                totals.successes += 1
                tally.successes += 1
            else:
                totals.errors += 1
                tally.errors += 1
            totals.read_bytes += read_bytes
            totals.written_bytes += written_bytes
            totals.latencies.append(took_s)
            tally.total_s += took_s
            tally.slowest_s = max(tally.slowest_s, took_s)
        if read_bytes:
            metrics.FILES_READ.inc(read_bytes)
        if written_bytes:
            metrics.FILES_WRITTEN.inc(written_bytes)

    def _wait(self, scope: Scope) -> None:
        self._waiting += 1
        wait_s = scope.bound_s(WAIT_S)
        ends_at = scope.clock.monotonic() + wait_s
        try:
            with scope.cancelled.calling(self._wake):
                while self._active >= self.limit:
                    scope.check()
                    left_s = ends_at - scope.clock.monotonic()
                    if left_s <= 0:
                        raise PoolExhausted("files", self.limit, round(wait_s, 3))
                    self._condition.wait(left_s)
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        with self._lock:
            self._condition.notify_all()


class Passage:
    """One operation. `read_bytes` and `written_bytes` are what it moved, to be set by whoever knows."""

    __slots__ = ("_begun", "_meter", "_name", "_scope", "read_bytes", "written_bytes")

    def __init__(self, meter: Meter, name: str, scope: Scope) -> None:
        """Prepare; nothing is waited for yet."""
        self._meter = meter
        self._name = name
        self._scope = scope
        self._begun = 0.0
        self.read_bytes = 0
        self.written_bytes = 0

    def __enter__(self) -> Self:
        self._scope.check()
        self._meter.enter(self._scope)
        self._begun = self._scope.clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count it."""
        took_s = self._scope.clock.monotonic() - self._begun
        self._meter.leave()
        self._meter.record(
            self._name, took_s, ok=error is None, read_bytes=self.read_bytes, written_bytes=self.written_bytes
        )

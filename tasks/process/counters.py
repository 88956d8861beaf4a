"""What the programs of one worker came to."""

import threading
from collections import Counter
from typing import NamedTuple, get_args

from gaia.contracts import process
from tasks import metrics


class Totals(NamedTuple):
    """Counters since the start, and gauges."""

    running: int
    peak_running: int
    started: int
    completed: int
    failed: int
    refused: int
    reasons: dict[str, int]
    cpu_s: float
    output_bytes: int
    peak_memory_bytes: int


class Counters:
    """Thread-safe. `capacity` bounds what runs at once."""

    def __init__(self, capacity: int) -> None:
        """Start at nothing."""
        self.capacity = capacity
        self._lock = threading.Condition()
        self._reasons: Counter[str] = Counter()
        self._running = self._peak_running = self._started = self._completed = self._failed = self._refused = 0
        self._output_bytes = self._peak_memory_bytes = 0
        self._cpu_s = 0.0
        for each in get_args(process.Reason):
            metrics.PROGRAMS_ENDED.labels(each)  # a counter that begins with 1 shows no increase

    def enter(self, wait_s: float = 0.0) -> bool:
        """Take a place, after waiting for one at most so long; False if all are taken."""
        with self._lock:
            if not self._lock.wait_for(lambda: self._running < self.capacity, wait_s):
                return False
            self._running += 1
            self._peak_running = max(self._peak_running, self._running)
        metrics.PROGRAMS.inc()
        return True

    def leave(self) -> None:
        """Give a place back."""
        with self._lock:
            self._running -= 1
            self._lock.notify()
        metrics.PROGRAMS.dec()

    def started(self) -> None:
        """Count a program that was started."""
        with self._lock:
            self._started += 1
        metrics.PROGRAMS_STARTED.inc()

    def refused(self) -> None:
        """Count a program that was not started."""
        with self._lock:
            self._refused += 1
        metrics.PROGRAMS_REFUSED.inc()

    def ended(self, found: process.Exited) -> None:
        """Count the end of a program."""
        output_bytes = found.stdout_bytes + found.stderr_bytes
        completed = found.exit_code == 0 and found.reason == "exited"
        with self._lock:
            self._reasons[found.reason] += 1
            if completed:
                self._completed += 1
            else:
                self._failed += 1
            self._cpu_s += found.cpu_s
            self._output_bytes += output_bytes
            self._peak_memory_bytes = max(self._peak_memory_bytes, found.peak_memory_bytes)
        metrics.PROGRAMS_ENDED.labels(found.reason).inc()
        (metrics.PROGRAMS_COMPLETED if completed else metrics.PROGRAMS_FAILED).inc()
        metrics.PROGRAM_CPU_SECONDS.inc(found.cpu_s)
        metrics.PROGRAM_OUTPUT_BYTES.inc(output_bytes)
        metrics.PROGRAM_PEAK_MEMORY_BYTES.observe(found.peak_memory_bytes)

    def totals(self) -> Totals:
        """Give all of them, of one moment."""
        with self._lock:
            return Totals(
                running=self._running,
                peak_running=self._peak_running,
                started=self._started,
                completed=self._completed,
                failed=self._failed,
                refused=self._refused,
                reasons=dict(self._reasons),
                cpu_s=self._cpu_s,
                output_bytes=self._output_bytes,
                peak_memory_bytes=self._peak_memory_bytes,
            )

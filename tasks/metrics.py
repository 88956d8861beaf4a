"""The registry: every metric of a worker is declared here, once, those of calls in `tasks.meters`; the rooms fill them.

Units are Prometheus' base units. Every label is one of `VOCABULARY`, whose values are known before the worker starts:
no id, address, path or name of a host ever is one. `tests/unit/test_metrics.py` counts what that can come to.
"""

import resource
import threading
import time
from collections import Counter as Sum
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MethodType
from typing import Any, Final
from weakref import WeakMethod

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tasks.meters import RUN_BUCKETS, Calls
from tasks.meters import meters as meters  # noqa: PLC0414 - one place to look for metrics

REGISTRY: Final = CollectorRegistry()

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

VOCABULARY: Final[Mapping[str, str]] = {
    "operation": "an operation that has a handler",
    "outcome": "of the metric's own text",
    "error": "a class of `gaia.errors`",
    "limit": "rate, bytes or slots",
    "level": "global, host, key, job or pool",
    "choice": "open or closed",
    "state": "closed, open or half_open; busy or idle",
    "answer": "passage, probe or kept_out",
    "kind": "of the metric's own text",
    "step": "turn, upkeep or heartbeat",
    "event": "of the metric's own text",
    "reason": "of the metric's own text",
    "loop": "worker or browser",
    "generation": "of Python's garbage collector",
    "queue": "a queue of the worker",
    "node": "this worker",
    "boot": "this start of it",
    "version": "of this worker",
    "implementation": "of Python",
    "major": "of Python",
    "minor": "of Python",
    "patchlevel": "of Python",
}
"""The labels there are, and where their values come from."""

# A second series for each counter and histogram that tells when it was made: Prometheus sees resets without.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client

LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

Source = Callable[[], float | Mapping[str, float]]


class Readings(Collector):
    """A figure that is asked for when the metrics are read.

    For what a room counts by itself anyway, and for what would cost too much to tell at every change. With a `label`,
    sources give a mapping of its values to figures; what several sources give is added up.
    """

    def __init__(self, name: str, text: str, *, label: str | None = None, counts: bool = False) -> None:
        """Register a gauge, or, if it `counts`, a counter."""
        self._name, self._text = name, text
        self._family: Any = CounterMetricFamily if counts else GaugeMetricFamily
        self._labels = [] if label is None else [label]
        self._lock = threading.Lock()
        self._sources: list[Callable[[], Source | None]] = []
        REGISTRY.register(self)

    def watch(self, source: Source) -> None:
        """Add a source; a method counts as long as its object lives."""
        kept = WeakMethod(source) if isinstance(source, MethodType) else lambda: source
        with self._lock:
            self._sources = [each for each in self._sources if each() is not None] + [kept]

    def describe(self) -> Iterable[Metric]:
        """Name it, so that two of a name are noticed."""
        return [self._family(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """Ask every source."""
        total: Sum[str] = Sum()
        for each in self._sources:
            source = each()
            if source is not None:
                given = source()
                total.update(given if isinstance(given, Mapping) else {"": given})
        family = self._family(self._name, self._text, labels=self._labels)
        if not self._labels and self._sources:
            total.setdefault("", 0)
        for value, figure in sorted(total.items()):
            family.add_metric([value] if self._labels else [], figure)
        yield family


def exposition() -> bytes:
    """Give every metric of this process, as Prometheus reads it (`CONTENT_TYPE`)."""
    return generate_latest(REGISTRY)


# --- the process

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

THREADS: Final = Readings("gaia_threads", "Threads of the worker.")
THREADS.watch(threading.active_count)

DESCENDANTS: Final = Readings("gaia_descendants", "Processes that the worker started, and those that these started.")
DESCENDANTS_BYTES: Final = Readings("gaia_descendants_resident_bytes", "Their resident memory, added up.")

DESCENDANTS_CPU: Final = Readings(
    "gaia_descendants_cpu_seconds", "CPU time of those that have ended and were waited for.", counts=True
)


@lru_cache(1)
def _descendants_at(moment: int) -> tuple[int, int]:
    """Give their number and memory; looked at once a second, since that reads the table of all processes."""
    del moment
    found, resident = 0, 0
    for each in psutil.Process().children(recursive=True):
        try:
            resident += each.memory_info().rss
            found += 1
        except psutil.Error:
            continue  # it has ended meanwhile
    return found, resident


def _descendants() -> tuple[int, int]:
    return _descendants_at(int(time.monotonic()))


def _descendants_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


DESCENDANTS_CPU.watch(_descendants_cpu_s)
DESCENDANTS.watch(lambda: _descendants()[0])
DESCENDANTS_BYTES.watch(lambda: _descendants()[1])

WORKER: Final = Gauge(
    "gaia_worker_info",
    "1, with what names this worker.",
    ["node", "boot", "version"],
    registry=REGISTRY,
)
SLOTS: Final = Gauge("gaia_slots", "Calls that may run at once here.", registry=REGISTRY)
READY: Final = Readings("gaia_worker_ready", "1 if the worker consumes, see docs/monitoring.md; else 0.")
LOOP_AGE: Final = Readings("gaia_loop_age_seconds", "Since the loop of the worker last turned.")
LOOP_LAG: Final = Histogram(
    "gaia_loop_lag_seconds",
    "From when a timer of a loop was due, once a second, to when it ran: worker (of fetch and commit), browser (of all "
    "pages).",
    ["loop"],
    buckets=LAG_BUCKETS,
    registry=REGISTRY,
)
FETCH_AGE: Final = Readings("gaia_fetch_age_seconds", "Since the server last answered a turn or a wait.")
RENEWALS: Final = Counter(
    "gaia_worker_renewals",
    "How often this process executed itself anew because of its memory bound.",
    registry=REGISTRY,
)

# --- calls

ERRORS: Final = Counter("gaia_errors", "Errors given to callers, by class.", ["operation", "error"], registry=REGISTRY)
RETRIES: Final = Counter(
    "gaia_retries", "Runs that failed and are followed by another.", ["operation"], registry=REGISTRY
)
DUPLICATES: Final = Counter(
    "gaia_duplicates",
    "Messages that came once more: redelivered (a worker was lost over it), running (a run of it still goes on here), "
    "done (its outcome was stored already, so it was not run again).",
    ["kind"],
    registry=REGISTRY,
)
LETTERS: Final = ("workers_lost", "newer_version", "unread_failure", "refused", "unreadable")
DEAD_LETTERS: Final = Counter(
    "gaia_dead_letters",
    "Calls that became dead letters: workers_lost, newer_version (no worker of it came in time), unread_failure (it "
    "failed with nobody to be told), refused (no call of ours), unreadable (no message at all).",
    ["reason"],
    registry=REGISTRY,
)

for _reason in LETTERS:
    # A counter that begins with 1 shows no increase.
    DEAD_LETTERS.labels(_reason)


REGISTRY.register(Calls())

# --- the broker

TURNS: Final = Counter("gaia_turns", "Turns that the server answered.", registry=REGISTRY)
FETCHED: Final = Counter("gaia_messages_fetched", "Messages fetched.", registry=REGISTRY)
HELD: Final = Readings("gaia_messages_held", "Messages held now, those that run and those that wait for a slot.")
COMMITTED: Final = Counter("gaia_commits", "Ends of messages that the server answered.", registry=REGISTRY)
REFUSED: Final = Counter("gaia_commits_refused", "Of these, refused: the lease had lapsed.", registry=REGISTRY)
LEASES_RENEWED: Final = Counter("gaia_leases_renewed", "Renewals of leases, one a message.", registry=REGISTRY)
LEASES_LOST: Final = Counter("gaia_leases_lost", "Leases of running calls that were lost.", registry=REGISTRY)
RESTORED: Final = Counter("gaia_leases_restored", "Messages of dead workers that this one put back.", registry=REGISTRY)
GIVEN_BACK: Final = Counter("gaia_messages_given_back", "Messages given back without an end.", registry=REGISTRY)
BROKER_FAILURES: Final = Counter(
    "gaia_broker_failures",
    "What Redis did not answer or refused: turn (of the loop), upkeep (of the leases), heartbeat, results (elsewhere).",
    ["step"],
    registry=REGISTRY,
)
for _step in ("turn", "upkeep", "heartbeat", "results"):
    BROKER_FAILURES.labels(_step)
ORPHANS: Final = Counter(
    "gaia_orphans_answered", "Calls for workers that have gone, answered by this one.", registry=REGISTRY
)

# --- limits

LIMIT_DECISIONS: Final = Counter(
    "gaia_limit_decisions",
    "Answers of a limit. `limit` is rate, bytes or slots, `level` global, host, key, job or pool, `outcome` admitted, "
    "refused, shadow_refused (would have been refused) or near (over 80 % of the limit was in use).",
    ["limit", "level", "outcome"],
    registry=REGISTRY,
)
LIMITS_AWAY: Final = Counter(
    "gaia_limits_away",
    "Limits asked for while Redis did not answer, by what was chosen: open, closed.",
    ["choice"],
    registry=REGISTRY,
)
LIMIT_PAUSED: Final = Counter(
    "gaia_limit_paused_seconds",
    "Seconds that calls waited for leave of limits, added up. `limit` is rate, bytes or slots.",
    ["limit"],
    registry=REGISTRY,
)
for _choice in ("open", "closed"):
    LIMITS_AWAY.labels(_choice)
LEASES: Final = Readings("gaia_limit_leases_held", "Slots of concurrency limits held here.", label="level")
CIRCUITS: Final = Gauge(
    "gaia_circuits", "Circuits this worker used of late, by the state it last saw.", ["state"], registry=REGISTRY
)
CIRCUIT_ANSWERS: Final = Counter(
    "gaia_circuit_answers", "Answers of circuit breakers: passage, probe, kept_out.", ["answer"], registry=REGISTRY
)

# --- subsystems

MEMORY_BUCKETS: Final = tuple(float(1 << power) for power in range(20, 35, 2))

PROGRAMS: Final = Gauge("gaia_process_active", "Programs running now, run and started.", registry=REGISTRY)
PROGRAMS_STARTED: Final = Counter("gaia_process_started", "Programs that were started.", registry=REGISTRY)
PROGRAMS_REFUSED: Final = Counter("gaia_process_refused", "Programs that were not started.", registry=REGISTRY)
PROGRAMS_ENDED: Final = Counter("gaia_process_ended", "Programs that ended, by reason.", ["reason"], registry=REGISTRY)
PROGRAMS_COMPLETED: Final = Counter(
    "gaia_process_completed", "Programs that ended by themselves with exit code 0.", registry=REGISTRY
)
PROGRAMS_FAILED: Final = Counter("gaia_process_failed", "Programs that ended otherwise.", registry=REGISTRY)
PROGRAMS_MEMORY_BYTES: Final = Gauge(
    "gaia_process_memory_bytes", "Memory of the trees of all programs now.", registry=REGISTRY
)
PROGRAM_CPU_SECONDS: Final = Counter("gaia_process_cpu_seconds", "CPU time of ended programs.", registry=REGISTRY)
PROGRAM_OUTPUT_BYTES: Final = Counter("gaia_process_output_bytes", "Output of ended programs.", registry=REGISTRY)
PROGRAM_PEAK_MEMORY_BYTES: Final = Histogram(
    "gaia_process_peak_memory_bytes",
    "The most memory that the tree of a program had.",
    buckets=MEMORY_BUCKETS,
    registry=REGISTRY,
)

DNS_LOOKUPS: Final = Readings(
    "gaia_dns_lookups",
    "Look-ups of names, by how they ended: hit, stale and negative were answered by this process, joined by a question "
    "that was under way, shared by the cluster; asked went to name servers; failed had no answer, beside one of these.",
    label="outcome",
    counts=True,
)
DNS_NAMES: Final = Readings("gaia_dns_names", "Answers that the cache of names holds.")

PROXY_CONNECTIONS: Final = Readings("gaia_proxy_connections", "Connections of Chromium through the proxy.")

API_EXCHANGES: Final = Counter(
    "gaia_api_exchanges",
    "Exchanges with servers: succeeded (a status under 500), failed; or limited: kept from being sent.",
    ["outcome"],
    registry=REGISTRY,
)
API_SECONDS: Final = Histogram(
    "gaia_api_exchange_seconds",
    "From the first byte sent to the last byte read.",
    buckets=RUN_BUCKETS,
    registry=REGISTRY,
)
API_RECEIVED: Final = Counter("gaia_api_received_bytes", "Bytes of answers.", registry=REGISTRY)
API_EVENTS: Final = Counter(
    "gaia_api_events",
    "Exchanges that followed another: retried, resumed (a download), redirected.",
    ["event"],
    registry=REGISTRY,
)
API_ACTIVE: Final = Readings("gaia_api_active", "Exchanges with servers under way.")
API_PEAK: Final = Readings("gaia_api_active_peak", "The most that were under way at once.")
API_CONNECTIONS: Final = Readings("gaia_api_sessions", "Sessions with servers: busy, idle.", label="state")
API_BULK: Final = Readings(
    "gaia_api_bulk", "Requests of batches: active (they have a connection), waiting (for one).", label="kind"
)

FILES_ACTIVE: Final = Readings("gaia_files_active", "File operations past the gate now.")
FILES_PEAK: Final = Readings("gaia_files_active_peak", "The most that were past the gate at once.")
FILES_WAITING: Final = Readings("gaia_files_waiting", "File operations that wait at the gate.")
FILES_LIMIT: Final = Readings("gaia_files_limit", "How many the gate lets through at once.")
FILES_READ: Final = Counter("gaia_files_read_bytes", "Bytes read for callers.", registry=REGISTRY)
FILES_WRITTEN: Final = Counter("gaia_files_written_bytes", "Bytes written for callers.", registry=REGISTRY)


def by_label(metric: Collector, label: str) -> dict[str, float]:
    """Give the figures of a metric by one of its labels, without reading any other metric."""
    return {each.labels[label]: each.value for family in metric.collect() for each in family.samples}


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give the nearest-rank quantile of what is in order, to the microsecond; 0 of none."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 6) if ordered else 0.0


BROWSER_EVENTS: Final = Counter(
    "gaia_browser_events",
    "What happened to browsers: launches, recycled, browser_crashes, tab_crashes, tabs_opened, reused, warm, retries, "
    "sessions_opened, sessions_expired, extensions_loaded, protocol_errors, over_memory.",
    ["event"],
    registry=REGISTRY,
)
BROWSER_LIVE: Final = Gauge(
    "gaia_browser_live",
    "Browsers, tabs, warm tabs, sessions, and the bytes of memory of all.",
    ["kind"],
    registry=REGISTRY,
)

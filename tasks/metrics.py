"""The registry: every metric of a worker is declared here, once."""

from collections import Counter as Sum
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple, Protocol
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

REGISTRY: Final = CollectorRegistry()


class Counts(Protocol):
    """Whoever counts by itself, as what happens a million times a second does."""

    def counts(self) -> Mapping[str, int]:
        """Give the counts by label."""
        ...


class Tallies(Collector):
    """A counter whose values are asked for when the metrics are read."""

    def __init__(self, name: str, text: str, label: str, registry: CollectorRegistry) -> None:
        """Register it."""
        self._about = (name, text, label)
        self._sources: WeakSet[Counts] = WeakSet()
        registry.register(self)

    def watch(self, source: Counts) -> None:
        """Add what a source counts, as long as it lives."""
        self._sources.add(source)

    def describe(self) -> Iterable[Metric]:
        """Name it, so that two of a name are noticed."""
        name, text, label = self._about
        return [CounterMetricFamily(name, text, labels=[label])]

    def collect(self) -> Iterable[Metric]:
        """Give the sums."""
        name, text, label = self._about
        family = CounterMetricFamily(name, text, labels=[label])
        total: Sum[str] = Sum()
        for each in list(self._sources):
            total.update(each.counts())
        for value, count in sorted(total.items()):
            family.add_metric([value], count)
        yield family


OUTCOMES: Final = ("ok", "error", "later", "handed_back")

RUN_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
WAIT_BUCKETS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800)

OPERATIONS: Final = Counter(
    "gaia_operations", "Runs of an operation, by how they ended.", ["operation", "outcome"], registry=REGISTRY
)
ERRORS: Final = Counter("gaia_errors", "Errors given to callers, by class.", ["operation", "error"], registry=REGISTRY)
RUNNING: Final = Gauge("gaia_operations_running", "Calls running now.", ["operation"], registry=REGISTRY)
RUN_SECONDS: Final = Histogram(
    "gaia_operation_seconds", "How long a run took.", ["operation"], buckets=RUN_BUCKETS, registry=REGISTRY
)
WAIT_SECONDS: Final = Histogram(
    "gaia_queue_wait_seconds",
    "From submit to start, for calls that say when they were submitted; clocks of two machines may differ.",
    ["operation"],
    buckets=WAIT_BUCKETS,
    registry=REGISTRY,
)

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
LEASES: Final = Gauge("gaia_limit_leases_held", "Slots of concurrency limits held here.", ["level"], registry=REGISTRY)
CIRCUITS: Final = Gauge(
    "gaia_circuits", "Circuits this worker used of late, by the state it last saw.", ["state"], registry=REGISTRY
)
CIRCUIT_ANSWERS: Final = Counter(
    "gaia_circuit_answers", "Answers of circuit breakers: passage, probe, kept_out.", ["answer"], registry=REGISTRY
)

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

DNS_LOOKUPS: Final = Tallies(
    "gaia_dns_lookups",
    "Look-ups of names, by how they ended: hit, stale and negative were answered by this process, joined by a question "
    "that was under way, shared by the cluster; asked went to name servers; failed had no answer, beside one of these.",
    "outcome",
    REGISTRY,
)

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


FILES_ACTIVE: Final = Gauge("gaia_files_active", "File operations past the gate now.", registry=REGISTRY)
FILES_PEAK: Final = Gauge("gaia_files_active_peak", "The most that were past the gate at once.", registry=REGISTRY)
FILES_READ: Final = Counter("gaia_files_read_bytes", "Bytes read for callers.", registry=REGISTRY)
FILES_WRITTEN: Final = Counter("gaia_files_written_bytes", "Bytes written for callers.", registry=REGISTRY)


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


class Meters(NamedTuple):
    """The metrics of one operation, looked up once: a look-up by label costs more than the count."""

    running: Gauge
    run_seconds: Histogram
    wait_seconds: Histogram
    ended: dict[str, Counter]


@cache
def meters(operation: str) -> Meters:
    """Give the metrics of an operation."""
    ended = {outcome: OPERATIONS.labels(operation, outcome) for outcome in OUTCOMES}
    return Meters(RUNNING.labels(operation), RUN_SECONDS.labels(operation), WAIT_SECONDS.labels(operation), ended)

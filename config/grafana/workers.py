"""The worker processes: are they well, do they grow."""

from config.grafana.panels import WORKERS, Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, increase, rate, series, share, total

_NAME = "{{worker}}"
_JOB = 'job="gaia-workers"'

_NOW: list[Builder] = [
    figure(
        "Workers", "Worker processes that Prometheus reaches.", "short", f"count({series('gaia_worker_info', WORKER)})"
    ),
    figure(
        "Not ready",
        "Workers that live and do not consume: `/workers/<node>/readiness` says why.",
        "short",
        f"count({series('gaia_worker_ready', WORKER)} == 0) or vector(0)",
        steps=((1, "red"),),
    ),
    figure("Slots", "Calls that the workers may run at once.", "short", total(series("gaia_slots", WORKER))),
    figure(
        "Slots in use",
        "Share of the slots in which a call runs.",
        "percentunit",
        share(total(series("gaia_operations_running", WORKER)), total(series("gaia_slots", WORKER))),
        steps=((0.9, "orange"),),
    ),
    figure(
        "Memory",
        "Resident memory of the workers and what they started, together.",
        "bytes",
        f"{total(series('process_resident_memory_bytes', WORKER, _JOB))} + "
        f"{total(series('gaia_descendants_resident_bytes', WORKER))}",
    ),
    figure(
        "CPU",
        "Cores that the worker processes use, without what they started.",
        "short",
        total(rate("process_cpu_seconds_total", WORKER, _JOB)),
    ),
]

_LOOP: list[Builder] = [
    graph(
        "Loop",
        "Since the loop of a worker last turned. Over a second something keeps it from turning.",
        "s",
        Query(series("gaia_loop_age_seconds", WORKER), _NAME),
        steps=((5, "red"),),
    ),
    graph(
        "Fetch",
        "Since the server last answered a turn or a wait.",
        "s",
        Query(series("gaia_fetch_age_seconds", WORKER), _NAME),
        steps=((6, "red"),),
    ),
    graph(
        "Ready",
        "1 while a worker consumes.",
        "short",
        Query(series("gaia_worker_ready", WORKER), _NAME),
        most=1,
    ),
    graph(
        "Running",
        "Calls that run, by worker.",
        "short",
        Query(total(series("gaia_operations_running", WORKER), "worker"), _NAME),
        stacked=True,
    ),
    graph(
        "Uptime",
        "Since a worker process began.",
        "s",
        Query(f"time() - {series('process_start_time_seconds', WORKER, _JOB)}", _NAME),
    ),
    bars(
        "Renewals",
        "How often workers executed themselves anew because of their memory bound, within the time that is shown.",
        "short",
        total(increase("gaia_worker_renewals_total", WORKER), "worker"),
        _NAME,
        steps=((3, "orange"),),
    ),
]

_RESOURCES: list[Builder] = [
    graph(
        "Resident memory",
        "Of a worker process, without what it started.",
        "bytes",
        Query(series("process_resident_memory_bytes", WORKER, _JOB), _NAME),
        steps=((2e9, "red"),),
    ),
    graph(
        "CPU by worker",
        "Cores that a worker process uses.",
        "short",
        Query(rate("process_cpu_seconds_total", WORKER, _JOB), _NAME),
    ),
    graph(
        "Threads",
        "Threads of Python. A steady rise is a leak.",
        "short",
        Query(series("gaia_threads", WORKER), _NAME),
        steps=((150, "orange"),),
    ),
    graph(
        "Open descriptors",
        "Files and sockets that a worker has open.",
        "short",
        Query(series("process_open_fds", WORKER, _JOB), _NAME),
    ),
    graph(
        "Descriptors in use",
        "Share of the descriptors that a worker may open.",
        "percentunit",
        Query(
            share(series("process_open_fds", WORKER, _JOB), series("process_max_fds", WORKER, _JOB)),
            _NAME,
        ),
        most=1,
        steps=((0.8, "red"),),
    ),
    graph(
        "Garbage collections",
        "Collections each second, by generation.",
        "ops",
        Query(total(rate("python_gc_collections_total", WORKER, _JOB), "generation"), "generation {{generation}}"),
    ),
    graph(
        "Processes below",
        "Processes that a worker started, and those that these started.",
        "short",
        Query(series("gaia_descendants", WORKER), _NAME),
    ),
    graph(
        "Memory below",
        "Resident memory of these, added up; pages that several share count for each.",
        "bytes",
        Query(series("gaia_descendants_resident_bytes", WORKER), _NAME),
        stacked=True,
    ),
    graph(
        "CPU below",
        "Cores that they used; they count when they end.",
        "short",
        Query(rate("gaia_descendants_cpu_seconds_total", WORKER), _NAME),
    ),
]

BOARD = Board(
    "gaia-workers",
    "Gaia / Workers",
    "The worker processes: do they consume, what do they use, do they grow.",
    (Row("Now", _NOW), Row("Loop", _LOOP), Row("Resources", _RESOURCES)),
    choices=(WORKERS,),
)

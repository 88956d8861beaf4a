"""The first dashboard to look at: is the cluster well, and where is it not."""

from config.grafana.panels import Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import increase, or_zero, quantile, rate, series, share, total

_NOW: list[Builder] = [
    figure(
        "Workers ready",
        "Workers that say that they consume, of all that the monitor reaches.",
        "short",
        "sum(gaia_node_ready)",
        steps=(),
    ),
    figure(
        "Runs",
        "Runs of all operations that end each second.",
        "ops",
        total(rate("gaia_operations_total")),
    ),
    figure(
        "Errors",
        "Share of all runs that end in an error; those that are the caller's own count, too.",
        "percentunit",
        share(total(rate("gaia_operations_total", 'outcome="error"')), total(rate("gaia_operations_total"))),
        steps=((0.01, "orange"), (0.05, "red")),
    ),
    figure(
        "Waiting",
        "Messages that wait in all queues.",
        "short",
        "sum(celery_queue_length)",
        steps=((1000, "orange"), (10000, "red")),
    ),
    figure(
        "Oldest waits",
        "Since the message that is fetched next was submitted, in the queue where that is longest.",
        "s",
        "max(celery_queue_oldest_task_age_seconds)",
        steps=((30, "orange"), (300, "red")),
    ),
    figure(
        "Alerts",
        "Alerts that fire now; the runbook is docs/monitoring.md.",
        "short",
        or_zero('count(ALERTS{alertstate="firing"})'),
        steps=((1, "red"),),
    ),
]

_FLOW: list[Builder] = [
    graph(
        "Runs by subsystem",
        "Runs that end each second, over five minutes.",
        "ops",
        Query("queue:gaia_operations:rate5m", "{{queue}}"),
        stacked=True,
    ),
    graph(
        "Error ratio by subsystem",
        "Share of a subsystem's runs that end in an error, over five minutes.",
        "percentunit",
        Query("queue:gaia_operations_errors:ratio_rate5m", "{{queue}}"),
        steps=((0.05, "red"),),
    ),
    graph(
        "p95 run time by subsystem",
        "95 of 100 runs of the last five minutes took no longer.",
        "s",
        Query("queue:gaia_operation_seconds:p95_5m", "{{queue}}"),
    ),
    graph(
        "p95 wait by subsystem",
        "95 of 100 calls of the last five minutes waited no longer from submit to start.",
        "s",
        Query("queue:gaia_queue_wait_seconds:p95_5m", "{{queue}}"),
        steps=((30, "red"),),
    ),
    graph(
        "Waiting by queue",
        "Messages that wait, of all priorities.",
        "short",
        Query(series("celery_queue_length"), "{{queue_name}}"),
        stacked=True,
    ),
    graph(
        "Slots in use",
        "Share of a worker's slots in which a call runs.",
        "percentunit",
        Query("worker:gaia_slots_used:ratio", "{{worker}}"),
        most=1,
        steps=((0.9, "orange"),),
    ),
]

_HEALTH: list[Builder] = [
    bars(
        "Workers by subsystem and health",
        "How the workers of each subsystem say that they are.",
        "short",
        "sum by (subsystem, status) (gaia_subsystem_workers)",
        "{{subsystem}} {{status}}",
    ),
    graph(
        "Resident memory",
        "Of each worker process, without what it started.",
        "bytes",
        Query('process_resident_memory_bytes{job="gaia-workers"}', "{{worker}}"),
    ),
    graph(
        "CPU",
        "Cores that each worker process uses, without what it started.",
        "short",
        Query('rate(process_cpu_seconds_total{job="gaia-workers"}[$__rate_interval])', "{{worker}}"),
    ),
    bars(
        "Most frequent errors",
        "The ten classes of errors that callers got most often within the time that is shown.",
        "short",
        or_zero(f"topk(10, {total(increase('gaia_errors_total'), 'error')} > 0)"),
        "{{error}}",
    ),
    graph(
        "Error budget",
        "How many times as fast as 99.9 % allow the cluster's own errors come, over an hour. 1 spends all of it.",
        "x",
        Query("gaia:slo_errors:ratio_rate1h / 0.001", "burn rate"),
        steps=((1, "orange"), (14.4, "red")),
    ),
    graph(
        "Redis",
        "Memory that Redis uses. Full, it refuses submits and results; a limit of 0 is none.",
        "bytes",
        Query("gaia_redis_memory_bytes", "used"),
        Query("gaia_redis_memory_limit_bytes", "limit"),
    ),
    graph(
        "Dead letters",
        "Calls that will not be performed and wait for somebody to look at them.",
        "short",
        Query("gaia_dead_letters_kept", "kept"),
        width=12,
    ),
    graph(
        "Run time of all",
        "Quantiles of all runs together, estimated from buckets.",
        "s",
        *(Query(quantile(each, "gaia_operation_seconds"), f"p{each * 100:.0f}") for each in (0.5, 0.95, 0.99)),
        width=12,
    ),
]

BOARD = Board(
    "gaia-overview",
    "Gaia / Overview",
    "Is the cluster well, and where is it not. Each subsystem has a dashboard of its own.",
    (Row("Now", _NOW), Row("Work", _FLOW), Row("Health", _HEALTH)),
    choices=(),
)

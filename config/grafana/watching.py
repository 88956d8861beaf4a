"""Whoever watches, and Redis."""

from config.grafana.panels import Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import or_zero, rate, total

_NOW: list[Builder] = [
    figure(
        "Monitor",
        "1 if Prometheus reaches the monitor.",
        "short",
        'min(up{job="gaia-monitor"})',
        steps=((1, "green"),),
        below="red",
    ),
    figure(
        "Redis",
        "1 if Redis answered the monitor's last look.",
        "short",
        "gaia_redis_up",
        steps=((1, "green"),),
        below="red",
    ),
    figure(
        "Workers not scraped",
        "Workers that are known and whose pages do not answer.",
        "short",
        'count(up{job="gaia-workers"} == 0) or vector(0)',
        steps=((1, "red"),),
    ),
    figure(
        "Sample age",
        "Since the monitor last looked at Redis: so old are the figures of queues.",
        "s",
        "gaia_monitor_sample_age_seconds",
        steps=((15, "red"),),
    ),
    figure(
        "Clients",
        "Connections to Redis.",
        "short",
        "gaia_redis_clients",
        steps=((5000, "red"),),
    ),
    figure(
        "Series",
        "Series that a scrape of everything brings.",
        "short",
        "sum(scrape_samples_scraped)",
    ),
]

_REDIS: list[Builder] = [
    graph(
        "Memory of Redis",
        "Used, and what it may use; 0 is no limit.",
        "bytes",
        Query("gaia_redis_memory_bytes", "used"),
        Query("gaia_redis_memory_limit_bytes", "limit"),
    ),
    graph("Connections to Redis", "Workers, producers, monitors.", "short", Query("gaia_redis_clients", "connections")),
    graph("A look at Redis", "How long the monitor's look took.", "s", Query("gaia_monitor_sample_seconds", "look")),
]

_EVENTS: list[Builder] = [
    graph(
        "Events",
        "Events of workers and producers that the monitor hears each second.",
        "ops",
        Query(total(rate("gaia_monitor_events_total"), "type"), "{{type}}"),
        stacked=True,
    ),
    graph(
        "Events that are late",
        "Since the event that was heard last had happened: rises where the monitor does not keep up, or clocks differ.",
        "s",
        Query("gaia_monitor_event_lag_seconds", "late"),
    ),
    graph(
        "Odd messages",
        "Messages each second that were no events, or not readable.",
        "ops",
        Query(total(rate("gaia_monitor_events_odd_total")), "odd"),
    ),
    graph(
        "Tasks under way",
        "Tasks that the monitor remembers until they end.",
        "short",
        Query("gaia_monitor_tasks_under_way", "tasks"),
    ),
    graph(
        "Workers up",
        "Workers that were heard of within a minute.",
        "short",
        Query("sum(celery_worker_up)", "up"),
        Query("count(celery_worker_up)", "known"),
    ),
    bars(
        "Tasks by worker",
        "Tasks that each worker says it runs.",
        "short",
        "celery_worker_tasks_active",
        "{{worker}}",
    ),
]

_SCRAPES: list[Builder] = [
    graph(
        "Scrape time",
        "How long Prometheus waits for a page.",
        "s",
        Query("max by (job) (scrape_duration_seconds)", "{{job}}"),
    ),
    graph(
        "Series by page",
        "Samples of a scrape.",
        "short",
        Query("scrape_samples_scraped", "{{instance}}"),
    ),
    graph(
        "New series",
        "Series that a scrape brought and the one before did not: a steady stream of them is a label without bounds.",
        "short",
        Query("sum by (job) (scrape_series_added)", "{{job}}"),
    ),
    graph(
        "Alerts",
        "Alerts that fire, and those that will unless it gets better.",
        "short",
        Query(or_zero("count by (alertstate) (ALERTS)"), "{{alertstate}}"),
        stacked=True,
        width=24,
    ),
]

BOARD = Board(
    "gaia-monitor",
    "Gaia / Monitor and Redis",
    "Is what the other dashboards show to be believed; and how is Redis.",
    (Row("Now", _NOW), Row("Redis", _REDIS), Row("Events", _EVENTS), Row("Prometheus", _SCRAPES)),
    choices=(),
)

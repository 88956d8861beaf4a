"""What every subsystem's dashboard begins with: its calls, from the queue to their end."""

from config.grafana.panels import Builder, Choice, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, mean, or_zero, quantile, rate, series, share, total

QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def operation(queue: str) -> tuple[str, str, str]:
    """Select a subsystem's chosen operations on the chosen workers."""
    return WORKER, f'operation=~"{queue}[.].+"', 'operation=~"$operation"'


def choice(queue: str) -> Choice:
    """Let one choose among a subsystem's operations."""
    return Choice("operation", f'gaia_operations_total{{operation=~"{queue}\\\\..+"}}', "Operation")


def head(queue: str, late_s: float) -> Row:
    """Show at a glance how a subsystem is; from `late_s` on a run is slow."""
    own = operation(queue)
    ended = total(rate("gaia_operations_total", *own))
    failed = total(rate("gaia_operations_total", *own, 'outcome="error"'))
    waiting = f'queue_name="{queue}"'
    panels: list[Builder] = [
        figure("Runs", f"Runs of {queue}.* that end each second, however they end.", "ops", ended),
        figure(
            "Errors",
            "Share of the runs that end in an error; those that are the caller's own count, too.",
            "percentunit",
            share(failed, ended),
            steps=((0.01, "orange"), (0.05, "red")),
        ),
        figure(
            "p95",
            "95 of 100 runs take no longer than this.",
            "s",
            quantile(0.95, "gaia_operation_seconds", *own),
            steps=((late_s, "red"),),
        ),
        figure("Running", "Calls that run now.", "short", total(series("gaia_operations_running", *own))),
        figure(
            "Waiting",
            f"Messages that wait in the queue {queue}, of all priorities.",
            "short",
            series("celery_queue_length", waiting),
            steps=((1000, "orange"),),
        ),
        figure(
            "Oldest waits",
            "Since the message that is fetched next was submitted.",
            "s",
            series("celery_queue_oldest_task_age_seconds", waiting),
            steps=((30, "orange"), (300, "red")),
        ),
    ]
    return Row("Now", panels)


def body(queue: str) -> Row:
    """Show a subsystem's calls over time."""
    own = operation(queue)
    named = "{{operation}}"
    ended = total(rate("gaia_operations_total", *own), "operation")
    failed = total(rate("gaia_operations_total", *own, 'outcome="error"'), "operation")
    run = [Query(quantile(each, "gaia_operation_seconds", *own), name) for each, name in QUANTILES]
    wait = [Query(quantile(each, "gaia_queue_wait_seconds", *own), name) for each, name in QUANTILES]
    panels: list[Builder] = [
        graph("Runs by operation", "Runs that end each second.", "ops", Query(ended, named), stacked=True),
        graph(
            "Run time",
            "Quantiles of how long a run takes, estimated from buckets.",
            "s",
            *run,
            Query(mean("gaia_operation_seconds", *own), "mean"),
        ),
        graph(
            "Wait in the queue",
            "Quantiles of the time from submit to the start of the first run.",
            "s",
            *wait,
        ),
        graph(
            "Error ratio by operation",
            "Share of an operation's runs that end in an error.",
            "percentunit",
            Query(share(failed, ended), named),
            most=1,
        ),
        graph(
            "Errors by class",
            "Errors given to callers each second; docs/monitoring.md tells whose fault which is.",
            "ops",
            Query(or_zero(total(rate("gaia_errors_total", *own), "error")), "{{error}}"),
            stacked=True,
        ),
        graph(
            "Runs that come again",
            "Runs each second that failed and are followed by another, and those put off (later) or handed back.",
            "ops",
            Query(or_zero(total(rate("gaia_retries_total", *own))), "retried"),
            Query(total(rate("gaia_operations_total", *own, 'outcome=~"later|handed_back"'), "outcome"), "{{outcome}}"),
        ),
        bars(
            "Slowest operations",
            "95th percentile of each operation's run time, now.",
            "s",
            quantile(0.95, "gaia_operation_seconds", *own, by=("operation",)),
            named,
            width=12,
        ),
        graph(
            "Running and slots",
            "Calls that run, beside what the workers of this queue may run at once.",
            "short",
            Query(total(series("gaia_operations_running", *own), "worker"), "{{worker}}"),
            Query(total(series("gaia_slots", WORKER, f'queues=~"(.*,)?{queue}(,.*)?"')), "slots"),
            width=12,
        ),
    ]
    return Row("Calls", panels)

"""Delivery: queues, leases, commits, retries, dead letters."""

from config.grafana.panels import WORKERS, Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, increase, or_zero, rate, series, share, total

_NOW: list[Builder] = [
    figure("Waiting", "Messages that wait in all queues.", "short", "sum(celery_queue_length)"),
    figure("Held", "Messages that workers hold.", "short", "celery_unacked_messages", steps=((10000, "red"),)),
    figure("Delayed", "Calls that wait for their time.", "short", "gaia_delayed_calls"),
    figure(
        "Overdue",
        "Since the first delayed call should have been queued; some seconds mean that no worker takes turns.",
        "s",
        "gaia_delayed_overdue_seconds",
        steps=((10, "red"),),
    ),
    figure(
        "Dead letters",
        "Calls that will not be performed: `gaia dead list`.",
        "short",
        "gaia_dead_letters_kept",
        steps=((1, "orange"), (9000, "red")),
    ),
    figure(
        "Paused", "Queues and operations that are paused.", "short", or_zero("sum(gaia_paused)"), steps=((1, "orange"),)
    ),
]

_QUEUES: list[Builder] = [
    graph(
        "Waiting by queue",
        "Messages of all priorities.",
        "short",
        Query("celery_queue_length", "{{queue_name}}"),
        stacked=True,
    ),
    graph(
        "Waiting by priority",
        "Messages of all queues; 0 is fetched first.",
        "short",
        Query("sum by (priority) (celery_queue_length_by_priority)", "priority {{priority}}"),
        stacked=True,
    ),
    graph(
        "Oldest message",
        "Since the message that is fetched next was submitted.",
        "s",
        Query("celery_queue_oldest_task_age_seconds", "{{queue_name}}"),
        steps=((300, "red"),),
    ),
    graph(
        "Held by queue",
        "Messages of a queue that workers hold: those that run, and those that wait for a slot.",
        "short",
        Query("celery_queue_unacked", "{{queue_name}}"),
        stacked=True,
    ),
    graph(
        "Received and ended",
        "Tasks that workers received, and runs that succeeded or failed, each second, by their events.",
        "ops",
        Query("sum(rate(celery_task_received_total[$__rate_interval]))", "received"),
        Query("sum(rate(celery_task_succeeded_total[$__rate_interval]))", "succeeded"),
        Query("sum(rate(celery_task_failed_total[$__rate_interval])) or vector(0)", "failed"),
    ),
    graph(
        "p95 wait by operation",
        "95 of 100 calls waited no longer from submit to the first start, as the workers' events tell.",
        "s",
        Query(
            "histogram_quantile(0.95, sum by (le, name) (rate(celery_task_queue_wait_time_bucket[$__rate_interval])))",
            "{{name}}",
        ),
    ),
    bars(
        "Workers of each queue",
        "Workers that serve a queue; a queue with none keeps its calls.",
        "short",
        "celery_active_worker_count",
        "{{queue_name}}",
    ),
    graph(
        "Slots and calls",
        "Calls that the workers may run at once, by queue.",
        "short",
        Query("celery_active_process_count", "{{queue_name}}"),
    ),
    graph(
        "p95 run time by outcome",
        "95 of 100 runs took no longer, stock Celery tasks included; failures and retries count apart.",
        "s",
        Query(
            "histogram_quantile(0.95, sum by (le, outcome) (rate(celery_task_runtime_bucket[$__rate_interval])))",
            "{{outcome}}",
        ),
    ),
]

_LEASES: list[Builder] = [
    graph(
        "Fetched, committed, given back",
        "Messages each second. What is given back runs elsewhere.",
        "ops",
        Query(total(rate("gaia_messages_fetched_total", WORKER)), "fetched"),
        Query(total(rate("gaia_commits_total", WORKER)), "committed"),
        Query(total(rate("gaia_messages_given_back_total", WORKER)), "given back"),
    ),
    graph(
        "Leases",
        "Renewals of leases each second, leases lost by a worker that lives, and those of dead ones put back.",
        "ops",
        Query(total(rate("gaia_leases_renewed_total", WORKER)), "renewed"),
        Query(total(rate("gaia_leases_lost_total", WORKER)), "lost"),
        Query(total(rate("gaia_leases_restored_total", WORKER)), "restored"),
    ),
    graph(
        "Commits refused",
        "Share of the commits that came after the lease had lapsed: the other run's result counts.",
        "percentunit",
        Query(
            share(total(rate("gaia_commits_refused_total", WORKER)), total(rate("gaia_commits_total", WORKER))),
            "refused",
        ),
    ),
    graph(
        "Messages that came once more",
        "Redelivered after a worker was lost, still running here, or done already, each second.",
        "ops",
        Query(or_zero(total(rate("gaia_duplicates_total", WORKER), "kind")), "{{kind}}"),
        stacked=True,
    ),
    graph(
        "Retries by operation",
        "Runs each second that failed and are followed by another. Retries hide an outage until they do not.",
        "ops",
        Query(or_zero(total(rate("gaia_retries_total", WORKER), "operation")), "{{operation}}"),
        stacked=True,
    ),
    bars(
        "New dead letters by reason",
        "Calls that became dead letters within the time that is shown.",
        "short",
        or_zero(total(increase("gaia_dead_letters_total", WORKER), "reason")),
        "{{reason}}",
    ),
    graph(
        "Turns",
        "Turns of the loop each second: each gives back, fetches and moves what is due in one call of Redis.",
        "ops",
        Query(total(rate("gaia_turns_total", WORKER), "worker"), "{{worker}}"),
    ),
    graph(
        "Messages a turn",
        "Messages fetched for each turn.",
        "short",
        Query(
            share(total(rate("gaia_messages_fetched_total", WORKER)), total(rate("gaia_turns_total", WORKER))),
            "messages",
        ),
    ),
    graph(
        "Broker failures",
        "What Redis did not answer or refused, each second, and calls for workers that have gone.",
        "ops",
        Query(or_zero(total(rate("gaia_broker_failures_total", WORKER), "step")), "{{step}}"),
        Query(total(rate("gaia_orphans_answered_total", WORKER)), "orphans answered"),
    ),
    graph(
        "Messages held by worker",
        "As the workers count them.",
        "short",
        Query(series("gaia_messages_held", WORKER), "{{worker}}"),
        width=24,
    ),
]

BOARD = Board(
    "gaia-delivery",
    "Gaia / Delivery",
    "From submit to result: what waits, who holds it, what comes twice, what is given up.",
    (Row("Now", _NOW), Row("Queues", _QUEUES), Row("Leases and ends", _LEASES)),
    choices=(WORKERS,),
)

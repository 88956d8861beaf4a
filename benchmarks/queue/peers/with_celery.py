"""Celery: as it comes, or, if BENCH_ENGINE is set, on Gaia's transport and result store."""

import os

import bench
from celery import Celery

app = Celery("bench", broker=bench.URL, backend=bench.URL)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=not bench.RESULTS,
    worker_send_task_events=bench.EVENTS,
    worker_hijack_root_logger=False,
)

if os.environ.get("BENCH_ENGINE"):
    from tasks.broker import transport

    transport.install()
    app.loader.override_backends = {"redis": "tasks.broker.backend:Backend"}

redis = bench.client()


@app.task(name="empty")
def empty() -> int:
    """Do nothing."""
    return bench.count()


@app.task(name="incr")
def incr() -> int:
    """Call Redis once."""
    redis.incr(bench.COUNTER)
    return bench.count()


@app.task(name="late")
def late(sent: float) -> None:
    """Note the delay."""
    bench.late(sent)


def main() -> None:
    """Produce."""
    bench.produce(lambda task, *arguments: app.tasks[task].apply_async(arguments))

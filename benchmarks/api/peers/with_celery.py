"""Celery as it comes, its tasks on requests: `main` queues so many."""

import os
import sys
import threading

import requests
from celery import Celery

URL = os.environ["BENCH_REDIS_URL"]
app = Celery("bench", broker=URL, backend=URL)
app.conf.update(task_acks_late=True, worker_hijack_root_logger=False)
kept = threading.local()


@app.task(name="get")
def get(url: str) -> str:
    """Send one request; each thread has a session, so that connections are kept."""
    if not hasattr(kept, "session"):
        kept.session = requests.Session()
    answer = kept.session.get(url, timeout=30)
    answer.raise_for_status()
    return str(answer.text)


def main() -> None:
    """Queue so many."""
    for _ in range(int(sys.argv[2])):
        get.delay(sys.argv[1])

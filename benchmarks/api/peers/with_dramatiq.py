"""dramatiq on its Redis broker, its actors on requests: `main` queues so many."""

import os
import sys
import threading

import dramatiq
import requests
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

URL = os.environ["BENCH_REDIS_URL"]
broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)
kept = threading.local()


@dramatiq.actor(store_results=True)
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
        get.send(sys.argv[1])

"""dramatiq on its Redis broker, with its default middleware."""

import bench
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=bench.URL)
if bench.RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=bench.URL)))
dramatiq.set_broker(broker)
redis = bench.client()
options = {"store_results": True} if bench.RESULTS else {}


@dramatiq.actor(**options)
def empty() -> int:
    """Do nothing."""
    return bench.count()


@dramatiq.actor(**options)
def incr() -> int:
    """Call Redis once."""
    redis.incr(bench.COUNTER)
    return bench.count()


@dramatiq.actor
def late(sent: float) -> None:
    """Note the delay."""
    bench.late(sent)


def main() -> None:
    """Produce."""
    bench.produce(lambda task, *arguments: globals()[task].send(*arguments))

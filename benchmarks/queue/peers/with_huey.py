"""huey on its default Redis storage, with a blocking pop."""

import bench
from huey import RedisHuey

huey = RedisHuey("bench", url=bench.URL, blocking=True, results=bench.RESULTS)
redis = bench.client()


@huey.task()
def empty() -> int:
    """Do nothing."""
    return bench.count()


@huey.task()
def incr() -> int:
    """Call Redis once."""
    redis.incr(bench.COUNTER)
    return bench.count()


@huey.task()
def late(sent: float) -> None:
    """Note the delay."""
    bench.late(sent)


def main() -> None:
    """Produce."""
    bench.produce(lambda task, *arguments: globals()[task](*arguments))

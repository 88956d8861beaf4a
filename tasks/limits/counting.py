"""The metrics of limits. Labels are bounded: what a limit counts, and the kind of its level, never its name."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from prometheus_client import Counter

from gaia.levels import level_of
from tasks import metrics
from tasks.limits.gcra import NEAR, Taken
from tasks.limits.protocols import Bucket, Lease, Refused, Slots

A = TypeVar("A")

KEPT: Final = 20_000

LEVELS: Final = ("global", "host", "key", "job", "pool")
"""What `level_of` gives."""

for _limit in ("rate", "bytes", "slots"):
    metrics.LIMIT_PAUSED.labels(_limit)  # a counter that begins with its first count shows no increase


class Counters(NamedTuple):
    """Of one level, looked up once: a look-up by label costs more than the count."""

    admitted: Counter
    refused: Counter
    shadow_refused: Counter
    near: Counter


@lru_cache(KEPT)
def counters(name: str) -> Counters:
    """Give the counters of a level named `rate:api.example.com`, `bytes:job:7`, `slots:pool:browser`."""
    limit = name.partition(":")[0]
    return Counters(*(metrics.LIMIT_DECISIONS.labels(limit, level(name), each) for each in Counters._fields))


@lru_cache(KEPT)
def level(name: str) -> str:
    """Give the kind of a level: global, host, key, job or pool."""
    return level_of(name.partition(":")[2])


def answer(buckets: Sequence[Bucket] | Sequence[Slots], given: A) -> A:
    """Count what a stack answered, and hand it on: leave counts for every level, a refusal for the one that refused."""
    if isinstance(given, Refused):
        counters(given.limit).refused.inc()
    else:
        for each in buckets:
            counters(each.name).admitted.inc()
    return given


def leased(buckets: Sequence[Bucket], taken: Taken) -> None:
    """Count what the store said beside its answer."""
    for each, shadowed, near in zip(buckets, taken.shadowed, taken.near, strict=True):
        if shadowed:
            counters(each.name).shadow_refused.inc(shadowed)
        if near:
            counters(each.name).near.inc()


def paused(name: str, seconds: float) -> None:
    """Count how long a call waited for leave of a level or a stack."""
    metrics.LIMIT_PAUSED.labels(name.partition(":")[0]).inc(seconds)


def held(lease: Lease) -> None:
    """Count what a lease says of its levels."""
    for each, used in zip(lease.slots, lease.used, strict=False):
        if used > each.limit:
            counters(each.name).shadow_refused.inc()
        if used > NEAR * each.limit:
            counters(each.name).near.inc()

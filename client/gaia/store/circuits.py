"""Circuits that keep requests from hosts now: what `gaia limits list` shows beside what is set.

Redis has an index of them, which `tasks/limits/lua/circuit.lua` writes with each change; nothing is searched for.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import redis

from gaia.store import keys

MOST: Final = 1000
"""So many are read, those that end last."""

SECOND_US: Final = 1_000_000


@dataclass(frozen=True)
class Circuit:
    """A circuit that is not closed, or a host that a server had everybody held off from (`Retry-After`).

    An open one lets nobody through until `until`, a half-open one a probe at a time; `until` is 0 for it. `since` is
    when the first requests were kept out, over probes that failed. Both are Unix times by the clock of Redis.
    """

    name: str
    state: Literal["open", "half_open", "held"]
    since: float
    until: float


def read(client: "redis.Redis") -> list[Circuit]:
    """Give the circuits that are not closed, by name. Raises what redis-py raises."""
    seconds, fraction = _pair(client.time())
    now_us = seconds * SECOND_US + fraction
    names: Any = client.zrevrangebyscore(keys.CIRCUITS, "+inf", now_us, start=0, num=MOST)
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hmget(name, "until", "held", "since")
        found = [_read(name.decode(), kept, now_us) for name, kept in zip(names, pipe.execute(), strict=True)]
    return sorted((each for each in found if each is not None), key=lambda each: each.name)


def _read(key: str, kept: list[bytes | None], now_us: int) -> Circuit | None:
    open_until, held_until, since = (int(each or 0) for each in kept)
    name = keys.name_of_circuit(key)
    if now_us < held_until and open_until <= held_until:
        return Circuit(name, "held", since / SECOND_US, held_until / SECOND_US)
    if now_us < open_until:
        return Circuit(name, "open", since / SECOND_US, open_until / SECOND_US)
    return Circuit(name, "half_open", since / SECOND_US, 0.0) if open_until else None


def _pair(found: Any) -> tuple[int, int]:
    seconds, fraction = found
    return int(seconds), int(fraction)

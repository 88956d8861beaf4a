"""Limits that operators set at run time, shared by producers and workers.

One record a name, in one Redis hash that does not expire: what is set holds over restarts of workers and of Redis.
Every change counts up a revision and is announced; workers re-read twice a second in any case, so a change is in
force everywhere within a second. What a record leaves out is as the workers' settings have it (`GAIA_LIMITS__...`).
"""

import builtins
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypedDict, Unpack

import redis

from gaia.errors import InvalidCall
from gaia.levels import FORMS, GLOBAL, is_name
from gaia.store import circuits, keys
from gaia.store.circuits import Circuit
from gaia.store.connection import reaching
from gaia.store.scripts import script

MOST_NAMES: Final = 10_000
REVISION: Final = "#revision"
"""Beside the names in the hash, none of which begins with this sign."""


@dataclass(frozen=True)
class Limit:
    """What is set for a name; None is for what is not.

    `rate_per_s` requests a second, up to `burst` at once (a second's worth by default). `concurrency` at once.
    `bytes_per_s`, up to `burst_bytes` at once (80 ms' worth by default). A circuit opens after
    `failure_threshold` failures in a row for `open_s` seconds, and closes after `success_threshold` successes. With
    `shadow` rate, bandwidth and concurrency are counted, and nothing is refused.
    """

    rate_per_s: float | None = None
    burst: int | None = None
    concurrency: int | None = None
    bytes_per_s: float | None = None
    burst_bytes: int | None = None
    failure_threshold: int | None = None
    open_s: float | None = None
    success_threshold: int | None = None
    shadow: bool = False


BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "rate_per_s": (0.001, 1_000_000),
    "burst": (1, 10_000_000),
    "concurrency": (1, 1_000_000),
    "bytes_per_s": (1, 10**11),
    "burst_bytes": (1, 4 * 10**9),
    "failure_threshold": (1, 1_000_000),
    "open_s": (0.001, 86_400),
    "success_threshold": (1, 1_000_000),
}

_FRACTIONS: Final = frozenset({"rate_per_s", "bytes_per_s", "open_s"})


class Changes(TypedDict, total=False):
    """The fields of `Limit`, any of them."""

    rate_per_s: float
    burst: int
    concurrency: int
    bytes_per_s: float
    burst_bytes: int
    failure_threshold: int
    open_s: float
    success_threshold: int
    shadow: bool


class Limits:
    """`Gaia.limits`."""

    def __init__(self, client: "redis.Redis", url: str) -> None:
        """Use the broker's client; `url` is for errors."""
        self._client = client
        self._url = url

    def set(self, name: str, **changes: Unpack[Changes]) -> Limit:
        """Change what is set for a name, in force everywhere within a second; what is left out stays as it was.

        Returns what is set for the name now.

        Args:
            name: "global", a host, "key:...", "job:..." or "pool:...".
            **changes: Fields of `Limit`.

        Raises:
            InvalidCall: the name has no such form, a value is out of bounds, nothing is given, or 10 000 names are set.
            Unreachable: if Redis did not answer.
        """
        require_name(name)
        if not changes:
            raise _refused("rate_per_s", f"or another must be given: {', '.join(each.name for each in fields(Limit))}")
        for field, value in changes.items():
            _require(field, value)
        args: builtins.list[str | int] = [name, json.dumps(changes), MOST_NAMES, REVISION, keys.LIMITS_CHANNEL]
        with reaching(self._url):
            kept: Any = script(self._client, "limit")(keys=[keys.LIMIT_SETTINGS], args=args)
        if not kept:
            raise _refused("name", f"is one too many: {MOST_NAMES} are set")
        return parse(kept) or Limit()

    def get(self, name: str) -> Limit | None:
        """Give what is set for a name, None if nothing is.

        Raises:
            InvalidCall: the name has no such form.
            Unreachable: if Redis did not answer.
        """
        require_name(name)
        with reaching(self._url):
            found: Any = self._client.hget(keys.LIMIT_SETTINGS, name)
        return None if found is None else parse(found)

    def list(self) -> "dict[str, Limit]":
        """Give everything that is set, by name; `global` first.

        Raises:
            Unreachable: if Redis did not answer.
        """
        with reaching(self._url):
            _, found = read(self._client)
        return dict(sorted(found.items(), key=lambda each: (each[0] != GLOBAL, each[0])))

    def circuits(self) -> "builtins.list[Circuit]":
        """Give the circuits that are open, half open or held now, by name; of more than 1000 those that end last.

        Raises:
            Unreachable: if Redis did not answer.
        """
        with reaching(self._url):
            return circuits.read(self._client)

    def reset(self, name: str) -> bool:
        """Forget what is set for a name, so that the workers' settings hold; False if nothing was set.

        Raises:
            InvalidCall, Unreachable: as `get`.
        """
        require_name(name)
        with reaching(self._url), self._client.pipeline() as pipe:
            pipe.hdel(keys.LIMIT_SETTINGS, name)
            pipe.hincrby(keys.LIMIT_SETTINGS, REVISION, 1)
            pipe.publish(keys.LIMITS_CHANNEL, keys.LIMIT_SETTINGS)
            return bool(pipe.execute()[0])


def revision(client: "redis.Redis") -> int:
    """Give the number of changes so far. Raises what redis-py raises."""
    found: Any = client.hget(keys.LIMIT_SETTINGS, REVISION)
    return int(found or 0)


def read(client: "redis.Redis") -> "tuple[int, dict[str, Limit]]":
    """Give the revision and everything that is set. Raises what redis-py raises."""
    found: Any = client.hgetall(keys.LIMIT_SETTINGS)
    counted = int(found.pop(REVISION.encode(), 0))
    limits = {name.decode(): parse(text) for name, text in found.items()}
    return counted, {name: each for name, each in limits.items() if each is not None}


def parse(text: bytes) -> Limit | None:
    """Read a record; fields of a newer version are left out, and a record nobody can read is None."""
    try:
        found = json.loads(text)
        known: dict[str, Any] = {each.name: found[each.name] for each in fields(Limit) if each.name in found}
        for field, value in known.items():
            _require(field, value)
    except (ValueError, TypeError, InvalidCall):
        return None
    return Limit(**(known | {field: float(known[field]) for field in _FRACTIONS & known.keys()}))


def shown(limit: Limit) -> dict[str, Any]:
    """Give what is set, by field."""
    return {name: value for name, value in asdict(limit).items() if value is not None and value is not False}


def require_name(name: str) -> None:
    """Raise `InvalidCall` unless it is a name that can be limited."""
    if not isinstance(name, str) or not is_name(name):
        raise _refused("name", f"{FORMS}; got {str(name)[:100]!r}")


def _require(field: str, value: object) -> None:
    if field == "shadow":
        if not isinstance(value, bool):
            raise _refused(field, f"must be true or false, got {value!r}")
        return
    if field not in BOUNDS:
        raise _refused(field, f"is unknown; there are {', '.join(each.name for each in fields(Limit))}")
    least, most = BOUNDS[field]
    whole = field not in _FRACTIONS
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    sound = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]
    if not sound or not least <= value <= most:  # type: ignore[operator]  # a number, by now
        raise _refused(field, f"must be a {'whole ' if whole else ''}number from {least:g} to {most:g}, got {value!r}")


def _refused(field: str, reason: str) -> InvalidCall:
    return InvalidCall("limits", field, reason)

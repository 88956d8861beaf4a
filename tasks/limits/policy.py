"""Which limits hold for which names: what operators set, over what the settings say."""

from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Final, TypeVar

from config import settings
from gaia.levels import GLOBAL, level_of
from gaia.store.limits import Limit
from tasks.limits.protocols import Bucket, Rules, Slots

KEPT: Final = 10_000

BANDWIDTH_BURST_S: Final = 0.08
"""What may move at once by default: bytes are to flow evenly, within a tenth of the rate over any second."""

CONNECTIONS: Final = "pool:connections"
"""The level of all connections of the cluster."""

T = TypeVar("T")


def levels(
    *, host: str | None = None, key: str | None = None, job: str | None = None, within: str | None = GLOBAL
) -> tuple[str, ...]:
    """Give the names of a stack, the outermost first: the whole cluster, a host, a key, a job.

    `within=None` leaves the cluster's level out, `within="pool:browser"` takes a pool in its place.
    """
    found = (
        within,
        None if host is None else host.rstrip(".").lower(),
        None if key is None else f"key:{key}",
        None if job is None else f"job:{job}",
    )
    return tuple(each for each in found if each is not None)


class Policy:
    """What is set, at one moment. Immutable but for what it remembers."""

    def __init__(self, defaults: settings.Limits, given: Mapping[str, Limit]) -> None:
        """Lay what is given over the defaults."""
        self._defaults = defaults
        self._given = given
        self._rates: dict[tuple[str, ...], tuple[Bucket, ...]] = {}
        self._bytes: dict[tuple[str, ...], tuple[Bucket, ...]] = {}
        self._slots: dict[tuple[tuple[str, ...], int | None], tuple[Slots, ...]] = {}
        self._sending: dict[tuple[str, tuple[str, ...]], tuple[Slots, ...]] = {}
        self._rules: dict[str, Rules] = {}

    def rates(self, names: tuple[str, ...]) -> tuple[Bucket, ...]:
        """Give the buckets of requests that bind a stack of names; names without a limit have none."""
        return _remembered(self._rates, names, lambda: _present(map(self._rate, names)))

    def bandwidths(self, names: tuple[str, ...]) -> tuple[Bucket, ...]:
        """Give the buckets of bytes."""
        return _remembered(self._bytes, names, lambda: _present(map(self._bandwidth, names)))

    def slots(self, names: tuple[str, ...], at_most: int | None = None) -> tuple[Slots, ...]:
        """Give the limits of concurrency; `at_most` is that of the last name where nothing is set for it."""

        def make() -> tuple[Slots, ...]:
            *outer, last = names
            found = [self._concurrency(each) for each in outer]
            return _present([*found, self._concurrency(last, at_most)])

        return _remembered(self._slots, (names, at_most), make)

    def connections(self, host: str) -> tuple[Slots, ...]:
        """Give the limits of connections to a host: those of the cluster, and the host's own."""
        base = self._defaults
        host_limit = base.host_connections if base.host_concurrency is None else base.host_concurrency
        return tuple(
            Slots(
                f"slots:{name}",
                limit if (set_to := self._of(name)).concurrency is None else set_to.concurrency,
                set_to.shadow,
            )
            for name, limit in zip(levels(host=host, within=CONNECTIONS), (base.connections, host_limit), strict=True)
        )

    def sending(self, names: tuple[str, ...], host: str) -> tuple[Slots, ...]:
        """Give what bounds requests under way to a host: connections, and the concurrency that is set for `names`."""
        return _remembered(self._sending, (host, names), lambda: self._of_sending(names, host))

    def _of_sending(self, names: tuple[str, ...], host: str) -> tuple[Slots, ...]:
        connections = self.connections(host)
        # The host has the same slots for both: nobody takes two of them for one request.
        known = {each.name for each in connections}
        return (*connections, *(each for each in self.slots(names) if each.name not in known))

    def rules(self, host: str) -> Rules:
        """Give when the circuit of a host opens and closes: as set for it, for `global`, or in the settings."""
        return _remembered(self._rules, host, lambda: self._rules_of(host))

    def _of(self, name: str) -> Limit:
        return self._given.get(name) or Limit()

    def _rate(self, name: str) -> Bucket | None:
        found, base = self._of(name), self._defaults
        rate, burst = found.rate_per_s, found.burst
        if name == GLOBAL:
            burst = burst if burst is not None or rate is not None else base.burst
            rate = base.rate_per_s if rate is None else rate
        elif level_of(name) == "host":
            burst = burst if burst is not None or rate is not None else base.host_burst
            rate = base.host_rate_per_s if rate is None else rate
        return _bucket("rate", name, rate, burst, shadow=found.shadow)

    def _bandwidth(self, name: str) -> Bucket | None:
        found = self._of(name)
        default = self._defaults.bytes_per_s if name == GLOBAL else None
        rate = default if found.bytes_per_s is None else found.bytes_per_s
        burst = found.burst_bytes
        if burst is None and rate is not None:
            burst = max(1, ceil(rate * BANDWIDTH_BURST_S))
        return _bucket("bytes", name, rate, burst, shadow=found.shadow)

    def _concurrency(self, name: str, default: int | None = None) -> Slots | None:
        found = self._of(name)
        if default is None and level_of(name) == "host":
            default = self._defaults.host_concurrency
        limit = default if found.concurrency is None else found.concurrency
        return None if limit is None else Slots(f"slots:{name}", limit, found.shadow)

    def _rules_of(self, host: str) -> Rules:
        def value(field: str) -> float:
            for found in (self._of(host), self._of(GLOBAL), self._defaults):
                each: float | None = getattr(found, field)
                if each is not None:
                    return each
            raise AttributeError(field)

        return Rules(
            int(value("failure_threshold")),
            value("open_s"),
            int(value("success_threshold")),
            self._defaults.probe_s,
        )


def _bucket(limit: str, name: str, rate_per_s: float | None, burst: float | None, *, shadow: bool) -> Bucket | None:
    if rate_per_s is None:
        return None
    return Bucket(f"{limit}:{name}", rate_per_s, float(max(1, ceil(rate_per_s)) if burst is None else burst), shadow)


K = TypeVar("K")
Items = TypeVar("Items", Bucket, Slots)


def _present(found: Iterable[Items | None]) -> tuple[Items, ...]:
    return tuple(each for each in found if each is not None)


def _remembered(kept: dict[K, T], key: K, make: Callable[[], T]) -> T:
    found = kept.get(key)
    if found is None:
        if len(kept) >= KEPT:
            kept.clear()
        found = kept[key] = make()
    return found

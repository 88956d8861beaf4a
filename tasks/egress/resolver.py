"""Names to addresses: the hosts file, then a cache, then name servers.

The cache and the questions under way belong to the `Resolver` of one worker process, in memory; they are lost with it,
which costs new questions and nothing else.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from config.settings import Network
from gaia.errors import NameNotFound, ResolverFailed
from tasks.egress import names
from tasks.egress.hosts import Hosts
from tasks.egress.stub import RESOLV_CONF, Found, Stub
from tasks.scope import Clock

Type = Literal["A", "AAAA"]
Key = tuple[str, Type]
TYPES: Final[tuple[Type, ...]] = ("A", "AAAA")

HOSTS: Final = Path("/etc/hosts")


@dataclass(frozen=True)
class Answer:
    """The addresses of a canonical name.

    `cached` tells that no server was asked; `local` that the answer is no matter of DNS at all: an IP literal, or a
    name of the hosts file.
    """

    name: str
    type: Type
    addresses: tuple[str, ...]
    ttl_s: float
    cached: bool
    local: bool = False


@dataclass(frozen=True)
class _Kept:
    addresses: tuple[str, ...]
    expires_at: float


class Resolver:
    """Thread-safe. However many threads ask for one name at a time, servers are asked once."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        cache_entries: int = 1000,
        max_ttl_s: float = 300.0,
        clock: Clock | None = None,
        *,
        hosts: Path = HOSTS,
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        """Start with an empty cache.

        Raises:
            SettingsError: if a name server is no address.
        """
        self._clock = clock or Clock()
        self._stub = Stub(nameservers, resolv_conf)
        self._hosts = Hosts(hosts, self._clock)
        self._entries = cache_entries
        self._max_ttl_s = max_ttl_s
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._flights: dict[Key, Future[_Kept]] = {}

    @classmethod
    def from_settings(cls, settings: Network) -> "Resolver":
        """Make the resolver of a worker."""
        return cls(settings.nameservers, settings.cache_entries, settings.max_ttl_s)

    def resolve(self, name: str, kind: Type, *, timeout_s: float) -> Answer:
        """Look a name up; an IP literal in any spelling is its own answer.

        Raises:
            NameNotFound: if the name does not exist, has no such record, or is no name.
            ResolverFailed: if no name server answered in time.
        """
        plain = names.canonical(name)
        if plain is None:
            raise NameNotFound(name, kind)
        found = self._known_here(plain, kind)
        if found is None:
            return self._known_by_servers(plain, kind, timeout_s)
        if not found:
            raise NameNotFound(plain, kind)
        return Answer(plain, kind, found, self._max_ttl_s, cached=True, local=True)

    def _known_here(self, name: str, kind: str) -> tuple[str, ...] | None:
        if names.is_address(name):
            return (name,) if names.family(name) == kind else ()
        return self._hosts.addresses(name, kind)

    def _known_by_servers(self, name: str, kind: Type, timeout_s: float) -> Answer:
        key = (name, kind)
        ends_at = time.monotonic() + timeout_s
        while (left_s := ends_at - time.monotonic()) > 0:
            kept, flight, leads = self._board(key)
            if kept is not None:
                return self._answer(key, kept, cached=True)
            try:
                kept = self._lead(key, flight, left_s) if leads else flight.result(left_s)
            except TimeoutError:
                continue  # our time is over, or that of the thread that asked: then it is our turn
            except ResolverFailed as failure:
                raise ResolverFailed(name, failure.reason) from None
            return self._answer(key, kept, cached=False)
        raise ResolverFailed(name, f"no answer within {timeout_s:.3f} s")

    def _board(self, key: Key) -> tuple[_Kept | None, Future[_Kept], bool]:
        """Give the cached answer, or the flight to wait for and whether this thread is the one to fly it."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept.expires_at > self._clock.monotonic():
                self._kept.move_to_end(key)
                return kept, Future(), False
            flight = self._flights.get(key)
            if flight is not None:
                return None, flight, False
            flight = self._flights[key] = Future()
            return None, flight, True

    def _lead(self, key: Key, flight: Future[_Kept], timeout_s: float) -> _Kept:
        try:
            kept = self._keep(key, self._stub.ask(*key, timeout_s))
        except BaseException as failure:
            self._land(key)
            flight.set_exception(failure)
            raise
        self._land(key)
        flight.set_result(kept)
        return kept

    def _keep(self, key: Key, found: Found) -> _Kept:
        kept = _Kept(found.addresses, self._clock.monotonic() + min(found.ttl_s, self._max_ttl_s))
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)
        return kept

    def _land(self, key: Key) -> None:
        with self._lock:
            del self._flights[key]

    def _answer(self, key: Key, kept: _Kept, *, cached: bool) -> Answer:
        name, kind = key
        if not kept.addresses:
            raise NameNotFound(name, kind)
        ttl_s = max(kept.expires_at - self._clock.monotonic(), 0.0)
        return Answer(name, kind, kept.addresses, ttl_s, cached)

"""Names to records: the hosts file, then the cache of this process, then that of the cluster, then name servers.

The cache and the questions under way belong to the `Resolver` of one worker process, in memory; they are lost with it,
which costs new questions and nothing else.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Final, Literal

from config.nameservers import Server
from config.settings import Network
from gaia.errors import NameNotFound, ResolverFailed
from tasks.egress import names
from tasks.egress.batch import Batch
from tasks.egress.bulk import Bulk, Outcome
from tasks.egress.cache import Answer, Cache, Kept, Key
from tasks.egress.commons import BOUND_S, LOOK_S, Commons
from tasks.egress.counting import Tally
from tasks.egress.flight import Flight
from tasks.egress.hosts import Hosts
from tasks.egress.refresh import Refresher
from tasks.egress.stub import RESOLV_CONF, Stub
from tasks.egress.wire import Found
from tasks.scope import CancelToken, Clock

Type = Literal["A", "AAAA"]
TYPES: Final[tuple[Type, ...]] = ("A", "AAAA")
"""Of addresses, which are what a dial needs."""

HOSTS: Final = Path("/etc/hosts")

COMMONS_LEAST_S: Final = 4 * BOUND_S
"""Whoever has less time than this does not ask the cluster: Redis may take twice the bound, a server needs the rest."""

REFRESH_S: Final = 5.0
"""How long a refresh may take."""
REFRESH_TOGETHER_S: Final = 0.25
"""How long those that came later wait for it: one server that is silent must not keep other names from being asked for.
What comes after that is kept here and not shared."""
SHARE_S: Final = 0.5
"""How long answers may take to be shared, beside the time of the call."""

LONGEST_SPELLING: Final = 1000
"""Characters that are looked at at all: no spelling of a name of 253 octets has more, and encoding takes its time."""

AGAIN_S: Final = 1.0
"""A stale answer whose refresh failed is asked for again after so long."""

__all__ = ["HOSTS", "TYPES", "Answer", "Resolver", "Type"]


class Resolver:
    """Thread-safe. However many threads ask for one name at a time, servers are asked once."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        cache_entries: int = 1000,
        max_ttl_s: float = 300.0,
        clock: Clock | None = None,
        *,
        stale_s: float = 0.0,
        commons_url: str | None = None,
        hosts: Path = HOSTS,
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        """Start with an empty cache; `commons_url` is the Redis by which the cluster shares answers.

        Raises:
            SettingsError: if a name server is no address.
        """
        self._clock = clock or Clock()
        self._stub = Stub(nameservers, resolv_conf)
        self._hosts = Hosts(hosts, self._clock)
        self._max_ttl_s = max_ttl_s
        self._cache = Cache(cache_entries, max_ttl_s, stale_s, self._clock.monotonic)
        self._commons = None if commons_url is None else Commons.to(commons_url, self._stub.view)
        self._bulk = Bulk(self._stub)
        self._refresher = Refresher(self._refresh)
        self._lock = threading.Lock()
        self._flights: dict[Key, Flight] = {}
        self._look_at = 0.0
        self._flushes = 0
        self.tally = Tally(self._cache)
        self.shown = self._cache.shown
        """Gives the answer for a canonical name and a type if it was made a moment ago, else None: the short way."""

    @classmethod
    def from_settings(cls, settings: Network, url: str | None = None) -> "Resolver":
        """Make the resolver of a worker, which shares answers by the Redis at `url`."""
        return cls(
            settings.nameservers,
            settings.cache_entries,
            settings.max_ttl_s,
            stale_s=settings.stale_s,
            commons_url=url if settings.shared_cache else None,
        )

    @property
    def servers(self) -> tuple[Server, ...]:
        """The name servers."""
        return self._stub.servers

    @property
    def cache(self) -> Cache:
        """The first level."""
        return self._cache

    @property
    def commons(self) -> Commons | None:
        """The second level, None if there is none."""
        return self._commons

    def resolve(self, name: str, kind: str, *, timeout_s: float) -> Answer:
        """Look a name up; an IP literal in any spelling is its own answer, and as PTR its name is looked up.

        Redis is looked at first, once a second, for flushes: while it does not answer, that look-up takes up to 0.2 s
        longer, even of a name that is cached.

        Raises:
            NameNotFound: if the name does not exist, has no such record, or is no name.
            ResolverFailed: if no name server answered in time.
        """
        shown = self._cache.shown(name, kind)
        if shown is not None:
            return shown
        found = self._here(name, kind)
        return found if isinstance(found, Answer) else self._by_servers(found, timeout_s)

    def resolve_many(
        self, wanted: Sequence[str], kind: str, *, timeout_s: float, cancelled: CancelToken | None = None
    ) -> list[Answer | NameNotFound | ResolverFailed]:
        """Look names up at once, each as `resolve` does; give what became of each, in order.

        Takes at most `timeout_s`, less if the call is cancelled: what is not there by then failed.
        """
        ends_at = time.monotonic() + timeout_s
        given: list[Answer | NameNotFound | ResolverFailed | Key] = []
        for name in wanted:
            try:
                given.append(self._cache.shown(name, kind) or self._here(name, kind))
            except NameNotFound as failure:
                given.append(failure)
        asked = self._many([each for each in given if isinstance(each, tuple)], ends_at, cancelled)
        late = ResolverFailed("", f"no answer within {timeout_s:.3f} s")
        return [self._became(each, asked.get(each, late)) if isinstance(each, tuple) else each for each in given]

    def ask(self, servers: Sequence[Server], name: str, kind: str, *, timeout_s: float) -> Answer:
        """Ask servers of the caller's choice, past hosts file and cache. They have to be judged before.

        Raises:
            NameNotFound, ResolverFailed: as `resolve`.
        """
        plain = _plain(name, kind)
        if names.is_address(plain):
            return self._literal(plain, kind)
        try:
            found = Stub.of(servers).ask(plain, kind, timeout_s)
        except TimeoutError:
            raise ResolverFailed(plain, f"no answer within {timeout_s:.3f} s") from None
        if not found.records:
            raise NameNotFound(plain, kind)
        return Answer(plain, kind, found.records, min(found.ttl_s, self._max_ttl_s), cached=False)

    def flush(self) -> int:
        """Forget every answer, here at once and in the rest of the cluster within a second; give how many were here.

        Raises:
            Unreachable: Redis did not answer, so that the others go on with what they have.
        """
        found = self._cache.flush()
        if self._commons is not None:
            self._commons.flush()
            self._cache.flush()
        return found

    def close(self) -> None:
        """End the threads and connections; a resolver that is asked again after that gives what it keeps."""
        self._refresher.close()
        self._bulk.close()
        if self._commons is not None:
            self._commons.close()

    # --- what needs no server

    def _here(self, name: str, kind: str) -> Answer | Key:
        """Give the answer of the hosts file or the cache, else the key to ask for.

        Raises:
            NameNotFound: if it is known not to exist.
        """
        plain = _plain(name, kind)
        if names.is_address(plain):
            return self._literal(plain, kind)
        local = self._hosts.addresses(plain, kind)
        if local is not None:
            if not local:
                raise NameNotFound(plain, kind)
            return Answer(plain, kind, local, self._max_ttl_s, cached=True, local=True)
        self._look_for_flushes()
        key = (plain, kind)
        kept = self._cache.find(key)
        return key if kept is None else self._known(key, kept)

    def _literal(self, address: str, kind: str) -> Answer:
        if names.family(address) != kind:
            raise NameNotFound(address, kind)
        return Answer(address, kind, (address,), self._max_ttl_s, cached=True, local=True)

    def _known(self, key: Key, kept: Kept) -> Answer:
        answer = self._cache.show(key, kept, min(self._hosts.check_at, self._look_at))
        if not answer.records:
            self.tally.add("negative")
            raise NameNotFound(*key)
        if answer.stale:
            self.tally.add("stale")
            self._refresh_soon(key, kept)
        else:
            self.tally.add("hit")
        return answer

    def _refresh_soon(self, key: Key, kept: Kept) -> None:
        now = self._clock.monotonic()
        if now >= kept.refresh_at:
            kept.refresh_at = now + AGAIN_S
            flight, leads = self._board(key)
            if leads:
                try:
                    self._refresher.add(key, flight)
                except RuntimeError as failure:
                    self._leave(key, flight, None, ResolverFailed(key[0], str(failure)))

    def _look_for_flushes(self) -> None:
        """Forget everything if the cluster was told to; looked at once a second."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        if self._commons is not None:
            self._heed(self._commons.look())

    def _heed(self, flushes: int) -> None:
        if flushes != self._flushes:
            self._flushes = flushes
            self._cache.flush()

    # --- what does

    def _by_servers(self, key: Key, timeout_s: float) -> Answer:
        ends_at = time.monotonic() + timeout_s
        while (left_s := ends_at - time.monotonic()) > 0:
            flight, leads = self._board(key)
            if not leads:
                self.tally.add("joined")
            try:
                kept = self._lead(key, flight, ends_at) if leads else flight.result(left_s)
            except TimeoutError:
                continue  # our time is over, or that of the thread that asked: then it is our turn
            except ResolverFailed as failure:
                raise ResolverFailed(key[0], failure.reason) from None
            if not kept.records:
                raise NameNotFound(*key)
            return kept.answer(key, self._clock.monotonic(), cached=False)
        raise ResolverFailed(key[0], f"no answer within {timeout_s:.3f} s")

    def _board(self, key: Key) -> tuple[Flight, bool]:
        """Give the flight to wait for, and whether the caller is the one to fly it."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Flight()
            return flight, True

    def _lead(self, key: Key, flight: Flight, ends_at: float) -> Kept:
        generation = self._cache.generation
        try:
            kept = self._cache.fresh(key)
            if kept is not None:  # another thread's flight landed between our look and ours
                self._leave(key, flight, kept)
                return kept
            found = self._shared([key], ends_at).get(key) or self._asked(key, ends_at)
        except BaseException as failure:
            self._land(key, flight, failure, generation)
            raise
        self._land(key, flight, found, generation)
        return flight.result(0.0)

    def _asked(self, key: Key, ends_at: float) -> Found:
        self.tally.add("asked")
        flushes = self._flushes
        found = self._stub.ask(*key, max(0.001, ends_at - time.monotonic()))
        if self._commons is not None:
            self._commons.write({key: self._clamped(found)}, flushes, time.monotonic() + SHARE_S)
        return found

    def _shared(self, wanted: Sequence[Key], ends_at: float) -> dict[Key, Found]:
        """Give what the cluster knows."""
        if self._commons is None or ends_at - time.monotonic() < COMMONS_LEAST_S:
            return {}
        found = self._commons.read(wanted, ends_at)
        self._heed(self._commons.flushes)
        self.tally.add("shared", len(found))
        return found

    def _clamped(self, found: Found) -> Found:
        return Found(found.records, min(found.ttl_s, self._max_ttl_s))

    def _land(self, key: Key, flight: Flight, outcome: Outcome | BaseException, generation: int) -> Kept | None:
        """Keep what was found, and tell those who wait."""
        kept = self._cache.keep(key, outcome, generation) if isinstance(outcome, Found) else None
        if isinstance(outcome, BaseException):
            self.tally.add("failed")
            self._leave(key, flight, None, outcome)
        else:
            self._leave(key, flight, kept)
        return kept

    def _leave(self, key: Key, flight: Flight, kept: Kept | None, failure: BaseException | None = None) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.land(kept, failure)

    def _many(
        self, wanted: Sequence[Key], ends_at: float, cancelled: CancelToken | None
    ) -> Mapping[Key, Kept | ResolverFailed]:
        """Ask for many; give what was there by then."""
        token = cancelled or CancelToken()
        landed: dict[Key, Kept | ResolverFailed] = {}
        missing = list(dict.fromkeys(wanted))
        while missing:
            ours, others = self._boarded(missing, landed)
            landed |= self._fly(ours, others, ends_at, token)
            if token.is_set() or time.monotonic() >= ends_at:
                break
            # Whoever flew them had less time than we, or was cancelled: then it is our turn.
            missing = [key for key in others if key not in landed]
        return landed

    def _boarded(
        self, keys: Sequence[Key], landed: dict[Key, Kept | ResolverFailed]
    ) -> tuple[dict[Key, Flight], dict[Key, Flight]]:
        """Give the flights that are ours to fly, and those of others; enter what is known by now."""
        ours: dict[Key, Flight] = {}
        others: dict[Key, Flight] = {}
        for key in keys:
            flight, leads = self._board(key)
            kept = self._cache.fresh(key) if leads else None
            if kept is not None:
                self._leave(key, flight, kept)
                landed[key] = kept
            else:
                (ours if leads else others)[key] = flight
        self.tally.add("joined", len(others))
        return ours, others

    def _fly(
        self,
        ours: Mapping[Key, Flight],
        others: Mapping[Key, Flight],
        ends_at: float,
        cancelled: CancelToken,
        wait_until: float = inf,
    ) -> Mapping[Key, Kept | ResolverFailed]:
        """Fly ours; they land even if nobody waits any more, the last a moment after `ends_at`, or after a cancel."""
        flushes = self._flushes
        batch = Batch(ours, self._land, self._cache.generation)
        try:
            shared = self._shared(list(ours), ends_at) if ours else {}
            rest = [key for key in ours if key not in shared]
            self.tally.add("asked", len(rest))
            forget = self._bulk.ask(rest, ends_at, batch.answered) if rest else None
        except BaseException as failure:
            for key in ours:
                batch.landed(key, failure)
            raise
        for key, found in shared.items():
            batch.landed(key, found)
        batch.wait(others, min(ends_at, wait_until), cancelled)
        if forget is not None and cancelled.is_set():
            forget()
        became, fresh = batch.so_far(self._max_ttl_s)
        if self._commons is not None and fresh:
            self._commons.write(fresh, flushes, time.monotonic() + SHARE_S)
        return became

    def _refresh(self, flights: Mapping[Key, Flight]) -> None:
        now = time.monotonic()
        self._fly(flights, {}, now + REFRESH_S, CancelToken(), now + REFRESH_TOGETHER_S)

    def _became(self, key: Key, outcome: Kept | ResolverFailed) -> Answer | NameNotFound | ResolverFailed:
        if isinstance(outcome, ResolverFailed):
            return ResolverFailed(key[0], outcome.reason)
        if not outcome.records:
            return NameNotFound(*key)
        return outcome.answer(key, self._clock.monotonic(), cached=False)


def _plain(name: str, kind: str) -> str:
    """Give the canonical name to look up; for PTR that of an address.

    Raises:
        NameNotFound: if it is no name, or `localhost`, which no server is asked for (RFC 6761).
    """
    if len(name) > LONGEST_SPELLING:
        raise NameNotFound(name[:LONGEST_SPELLING], kind)
    plain = names.canonical(name)
    if plain is not None and kind == "PTR" and names.is_address(plain):
        plain = names.canonical(names.reverse(plain))
    if plain is None or (kind not in TYPES and names.is_localhost(plain)):
        raise NameNotFound(name, kind)
    return plain

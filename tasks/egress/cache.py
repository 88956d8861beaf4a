"""Answers of name servers, kept in this process: bounded, least recently used first to go, never emptied to make room.

An answer is given until its time is over, and for a while longer while it is asked for anew (RFC 5861's
stale-while-revalidate): for as long again as its own TTL, at most `stale_s`, so that a record that is meant to change
soon does. What does not exist is never given past its time.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import Any, Final

from tasks.egress.wire import Found

SIZE_LIMIT_BYTES: Final = 16 * 1024
"""Of the records of one answer, as text; a larger one is not kept: by TCP a server may send 64 KiB for every name."""

Key = tuple[str, str]
"""A canonical name and a record type."""


@dataclass(slots=True)
class Answer:
    """The records of a canonical name, in presentation form; not to be changed.

    `cached` tells that no server was asked; `local` that the answer is no matter of DNS at all: an IP literal, or a
    name of the hosts file. `stale` tells that its time is over and that it is being asked for. `memo` is for whoever
    makes something of it, to make it once.
    """

    name: str
    type: str
    records: tuple[str, ...]
    ttl_s: float
    cached: bool
    local: bool = False
    stale: bool = False
    memo: Any = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The records of a look-up of addresses."""
        return self.records


class Kept:
    """One answer, positive or negative."""

    __slots__ = ("expires_at", "records", "refresh_at", "shown", "shown_until", "stale_until")

    def __init__(self, records: tuple[str, ...], expires_at: float, stale_until: float) -> None:
        """Show nothing yet."""
        self.records = records
        self.expires_at = expires_at
        self.stale_until = stale_until
        self.shown: Answer | None = None
        self.shown_until = self.refresh_at = 0.0

    def answer(self, key: Key, now: float, *, cached: bool) -> Answer:
        """Make the answer of this moment; one from the cache tells whole seconds."""
        left_s = max(0.0, self.expires_at - now)
        return Answer(*key, self.records, float(floor(left_s)) if cached else left_s, cached, stale=left_s <= 0.0)


class Cache:
    """Thread-safe."""

    def __init__(self, entries: int, max_ttl_s: float, stale_s: float, monotonic: Callable[[], float]) -> None:
        """Start empty."""
        self._entries = entries
        self._max_ttl_s = max_ttl_s
        self._stale_s = stale_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self.hits = 0
        self.generation = 0
        """Counts flushes: what was asked for before one is not kept after it."""

    def __len__(self) -> int:
        """Count the answers."""
        return len(self._kept)

    def shown(self, name: str, kind: str) -> Answer | None:
        """Give the answer that was last made of an entry, if it is young: the short way, under a microsecond."""
        key = (name, kind)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and self._monotonic() < kept.shown_until:
                self._kept.move_to_end(key)
                self.hits += 1
                return kept.shown
        return None

    def find(self, key: Key) -> Kept | None:
        """Give an entry that is not over yet, stale ones too."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or self._monotonic() >= kept.stale_until:
                return None
            self._kept.move_to_end(key)
            return kept

    def fresh(self, key: Key) -> Kept | None:
        """Give an entry whose time is not over."""
        with self._lock:
            kept = self._kept.get(key)
        return kept if kept is not None and self._monotonic() < kept.expires_at else None

    def show(self, key: Key, kept: Kept, until: float) -> Answer:
        """Make an entry's answer and let `shown` give it for a moment, at most until then."""
        now = self._monotonic()
        answer = kept.answer(key, now, cached=True)
        if not answer.stale and answer.records:
            # Until the rest of its time has one whole second less.
            kept.shown, kept.shown_until = answer, min(kept.expires_at - answer.ttl_s, until)
        return answer

    def keep(self, key: Key, found: Found, generation: int) -> Kept:
        """Enter what servers said, unless a flush came in between."""
        now = self._monotonic()
        ttl_s = min(found.ttl_s, self._max_ttl_s)
        stale_s = min(ttl_s, self._stale_s) if found.records else 0.0
        kept = Kept(found.records, now + ttl_s, now + ttl_s + stale_s)
        with self._lock:
            if generation == self.generation and ttl_s > 0 and sum(map(len, found.records)) <= SIZE_LIMIT_BYTES:
                self._kept[key] = kept
                self._kept.move_to_end(key)
                while len(self._kept) > self._entries:
                    self._kept.popitem(last=False)
        return kept

    def flush(self) -> int:
        """Forget everything; give how much that was."""
        with self._lock:
            self.generation += 1
            found = len(self._kept)
            self._kept.clear()
            return found

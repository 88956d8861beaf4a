"""Which alerts a Prometheus has pending and firing, from when to when."""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from tests.support.prometheus import Prometheus


@dataclass
class Seen:
    """An alert that fired; times are those of `time.time`."""

    true_at: float
    """When its expression became true."""
    fired_at: float
    ended_at: float | None = None
    """When it was first seen not to fire any more."""


class Watch:
    """Asks a Prometheus for its alerts until it is left. Thread-safe."""

    def __init__(self, server: Prometheus, every_s: float) -> None:
        self._server, self._every_s = server, every_s
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}
        self._pending: frozenset[str] = frozenset()
        self._closed = threading.Event()
        self.stalled_s = 0.0
        """The longest that this thread was kept from running, or from an answer: a machine with no CPU left."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(30)

    def seen(self) -> dict[str, Seen]:
        """Give what has fired so far."""
        with self._lock:
            return dict(self._seen)

    def firing(self) -> set[str]:
        with self._lock:
            return {name for name, each in self._seen.items() if each.ended_at is None}

    def pending(self) -> set[str]:
        with self._lock:
            return set(self._pending)

    def forget(self) -> None:
        """Begin anew: what fired so far is forgotten."""
        with self._lock:
            self._seen.clear()

    def calm(self) -> bool:
        """Say whether nothing fires or is about to."""
        with self._lock:
            return not self._pending and all(each.ended_at is not None for each in self._seen.values())

    def have_fired(self, names: Iterable[str]) -> bool:
        with self._lock:
            return set(names) <= self._seen.keys()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._closed.wait(self._every_s):
            # Without an answer the next look tells.
            with suppress(OSError, ValueError, KeyError):
                self._look()
            self.stalled_s = max(self.stalled_s, time.monotonic() - begun - self._every_s)
            begun = time.monotonic()

    def _look(self) -> None:
        now, alerts = time.time(), self._server.ask("alerts")["alerts"]
        firing: dict[str, float] = {}
        for each in alerts:
            if each["state"] == "firing":
                name, true_at = each["labels"]["alertname"], datetime.fromisoformat(each["activeAt"]).timestamp()
                firing[name] = min(true_at, firing.get(name, true_at))
        with self._lock:
            self._pending = frozenset(each["labels"]["alertname"] for each in alerts if each["state"] == "pending")
            for name, true_at in firing.items():
                self._seen.setdefault(name, Seen(true_at, now)).ended_at = None
            for name, seen in self._seen.items():
                if name not in firing and seen.ended_at is None:
                    seen.ended_at = now

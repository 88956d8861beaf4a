"""Which alerts a Prometheus has pending and firing, of whom, from when to when."""

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from tests.faults.background import Background
from tests.support.prometheus import Prometheus

SUBJECTS: Final = ("worker", "node", "queue", "queue_name", "subsystem", "name")
"""The labels that say whom an alert is about, the one that says it best first."""


class Alert(NamedTuple):
    """An alert, of a worker, a queue or a subsystem; of none in particular if the subject is empty."""

    name: str
    subject: str = ""

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> "Alert":
        subject = next((labels[each] for each in SUBJECTS if labels.get(each)), "")
        # Workers are named by their queue here.
        return cls(labels["alertname"], subject.partition("@")[0])

    def is_about(self, subject: str) -> bool:
        """Say whether it may be of this one, as what is of nobody in particular may."""
        return subject in ("", self.subject) or not self.subject

    def __str__(self) -> str:
        return f"{self.name} of {self.subject}" if self.subject else self.name


@dataclass
class Seen:
    """An alert that fired; times are those of `time.time`."""

    true_at: float
    """When its expression became true."""
    fired_at: float
    ended_at: float | None = None
    """When it was first seen not to fire any more."""


class Stall(NamedTuple):
    """A time in which whoever watched was kept from running, or from an answer: a machine with no CPU left."""

    began_at: float
    ended_at: float

    @property
    def length_s(self) -> float:
        return self.ended_at - self.began_at


class Watch(Background):
    """Asks a Prometheus for its alerts until it is left. Thread-safe."""

    def __init__(self, server: Prometheus, every_s: float) -> None:
        super().__init__("watch")
        self._server, self.every_s = server, every_s
        self._lock = threading.Lock()
        self._seen: dict[Alert, Seen] = {}
        self._pending: frozenset[Alert] = frozenset()
        self._stalls: list[Stall] = []
        self._looks = 0

    @property
    def looks(self) -> int:
        """How often Prometheus said what fires."""
        with self._lock:
            return self._looks

    def stalls(self) -> list[Stall]:
        """Give by how much each look came late."""
        with self._lock:
            return list(self._stalls)

    def seen(self) -> dict[Alert, Seen]:
        """Give what has fired so far."""
        with self._lock:
            return dict(self._seen)

    def firing(self) -> set[Alert]:
        with self._lock:
            return {alert for alert, each in self._seen.items() if each.ended_at is None}

    def pending(self) -> set[Alert]:
        with self._lock:
            return set(self._pending)

    def forget(self) -> None:
        """Begin anew: what fired so far, how often was looked and what came late are forgotten."""
        with self._lock:
            self._seen.clear()
            self._stalls.clear()
            self._looks = 0

    def calm(self) -> bool:
        """Say whether nothing fires or is about to."""
        with self._lock:
            return not self._pending and all(each.ended_at is not None for each in self._seen.values())

    def have_fired(self, names: Iterable[str], subject: str = "") -> bool:
        with self._lock:
            return set(names) <= {each.name for each in self._seen if each.is_about(subject)}

    def _run(self) -> None:
        due_at = time.time() + self.every_s
        while not self._closed.wait(self.every_s):
            # Without an answer the next look tells.
            with suppress(OSError, ValueError, KeyError):
                self._look()
            now = time.time()
            with self._lock:
                if now > due_at:
                    self._stalls.append(Stall(due_at, now))
            due_at = now + self.every_s

    def _look(self) -> None:
        now, alerts = time.time(), self._server.ask("alerts")["alerts"]
        firing: dict[Alert, float] = {}
        for each in alerts:
            if each["state"] == "firing":
                alert, true_at = Alert.of(each["labels"]), datetime.fromisoformat(each["activeAt"]).timestamp()
                firing[alert] = min(true_at, firing.get(alert, true_at))
        with self._lock:
            self._looks += 1
            self._pending = frozenset(Alert.of(each["labels"]) for each in alerts if each["state"] == "pending")
            for alert, true_at in firing.items():
                self._seen.setdefault(alert, Seen(true_at, now)).ended_at = None
            for alert, seen in self._seen.items():
                if alert not in firing and seen.ended_at is None:
                    seen.ended_at = now

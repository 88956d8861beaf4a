"""What this process knows of the circuits, so that a request through a closed one costs no call.

A closed circuit is believed in for a second, less when a change of its state is announced. Failures are told at once;
a success is told only where failures are known, so that the cluster's count of failures in a row may miss a success of
another process that is younger than a second. An open circuit is believed in until it is half-open; then every step is
Redis', so the one probe is one in the whole cluster.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from gaia.errors import Unreachable
from tasks import metrics
from tasks.limits.circuit import SECOND_US
from tasks.limits.protocols import Away, Passage, Refused, Rules, State
from tasks.limits.shared import Seen, SharedBreaker, refusing
from tasks.scope import Clock

VIEW_S: Final = 1.0
MOST_CIRCUITS: Final = 10_000


@dataclass
class _View:
    state: State
    failures: int
    fresh_until: float
    out_until: float
    held: bool


class ViewedBreaker:
    """A `CircuitBreaker` over a shared one. Thread-safe; one a process."""

    def __init__(self, shared: SharedBreaker, clock: Clock | None = None) -> None:
        """Know nothing yet."""
        self._shared = shared
        self._monotonic = (clock or Clock()).monotonic
        self._lock = threading.Lock()
        self._views: OrderedDict[str, _View] = OrderedDict()

    def enter(self, name: str, rules: Rules, *, if_away: Away) -> Passage | Refused:
        """Ask for leave to try, Redis only where it may say no."""
        now = self._monotonic()
        view = self._views.get(name)
        if view is not None and now < view.out_until:
            return self._answer(Refused(refusing(name, view.held), view.out_until - now))
        if view is not None and view.state is State.CLOSED and now < view.fresh_until:
            return self._answer(Passage(name, rules))
        found, seen = self._shared.entered(name, rules, if_away=if_away)
        if seen is not None:
            self._see(name, seen, now)
        return self._answer(found)

    def succeeded(self, passage: Passage) -> None:
        """Tell that it worked, if that changes anything."""
        view = self._views.get(passage.name)
        if passage.probe or (view is not None and view.failures):
            self._tell("succeeded", passage)

    def failed(self, passage: Passage) -> None:
        """Tell that it failed."""
        self._tell("failed", passage)

    def abandoned(self, passage: Passage) -> None:
        """Tell that nobody will know."""
        if passage.probe:
            self._tell("abandoned", passage)

    def hold(self, name: str, seconds: float) -> None:
        """Let nobody through for so long; this process asks Redis next time."""
        self._shared.hold(name, seconds)
        self.forget(name)

    def state(self, name: str) -> State:
        """Give the state; Redis knows."""
        return self._shared.state(name)

    def forget(self, name: str | None = None) -> None:
        """Ask Redis next time, for one circuit or for all: its state has changed, or announcements were missed."""
        with self._lock:
            names = list(self._views) if name is None else [name]
            for each in names:
                view = self._views.pop(each, None)
                if view is not None:
                    metrics.CIRCUITS.labels(view.state.value).dec()

    def _tell(self, verb: str, passage: Passage) -> None:
        now = self._monotonic()
        try:
            seen = self._shared.step(verb, passage)
        except Unreachable:
            return
        self._see(passage.name, seen, now)

    def _see(self, name: str, seen: Seen, now: float) -> None:
        view = _View(seen.state, seen.failures, now + VIEW_S, now + max(0, seen.out_us) / SECOND_US, seen.held)
        self.forget(name)
        with self._lock:
            self._views[name] = view
            metrics.CIRCUITS.labels(view.state.value).inc()
            oldest = next(iter(self._views)) if len(self._views) > MOST_CIRCUITS else None
        if oldest is not None:
            self.forget(oldest)

    @staticmethod
    def _answer(found: Passage | Refused) -> Passage | Refused:
        answer = "kept_out" if isinstance(found, Refused) else "probe" if found.probe else "passage"
        metrics.CIRCUIT_ANSWERS.labels(answer).inc()
        return found

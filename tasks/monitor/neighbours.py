"""The workers whose pages this monitor reaches: asked for their health in turns, and handed on by request.

Those are the workers of this machine, and those that listen on more than loopback. Where their pages are is told by
their heartbeats, which is no reason to trust them: the token that is sent is of use there alone, an answer is bounded
in time and size, no redirect is followed, and what a browser would run is not handed on.

Workers that hang stall nobody: a round ends in time and asks those first that answered the last one; of the pages that
are handed on at once, few are of workers that did not.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final

from gaia.store.nodes import Node
from tasks.monitor import asking
from tasks.monitor.asking import Take
from tasks.monitor.crew import Crew
from tasks.monitor.reach import is_reachable
from tasks.monitor.series import Book
from tasks.monitor.thread import Thread
from tasks.runtime.pages import Page
from tasks.runtime.tokens import derived

PAUSE_S: Final = 5.0
"""From one round to the next."""

ROUND_S: Final = 10.0
"""So long a round may take; who was not asked by then has not answered."""

REPORT_LIFE_S: Final = 30.0
"""An older report says nothing any more."""

HEALTH_BOUND_S: Final = 4.0
PAGE_BOUND_S: Final = 5.0

PAGE_BYTES: Final = 8 * 1024 * 1024
PROFILE_BYTES: Final = 64 * 1024 * 1024

ASKED_AT_ONCE: Final = 32
HANDED_ON_AT_ONCE: Final = 24
SILENT_AT_ONCE: Final = 8
"""Pages handed on at once of workers that did not answer the last round; the others have places of their own."""

KINDS: Final = re.compile(r"(text/plain|application/json|application/openmetrics-text)( *;[ -~]*)?", re.IGNORECASE)
"""What is handed on: nothing that a browser would run."""

CROWDED: Final = Page(b"too many pages of workers are asked for at once\n", HTTPStatus.SERVICE_UNAVAILABLE)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """How a worker says it is; a worker that says nothing is unhealthy. `asked_at` is by the monotonic clock."""

    node: Node
    status: str
    reasons: tuple[str, ...]
    ready: bool
    subsystems: dict[str, Any] = field(default_factory=dict)
    answered: bool = True
    asked_at: float = 0.0

    @classmethod
    def silent(cls, node: Node, why: str, asked_at: float) -> "Report":
        """Say that a worker said nothing."""
        reason = f"{node.name} does not answer: {why}"
        gone = {"status": "unhealthy", "reasons": [reason]}
        each = dict.fromkeys(node.queues, gone)
        return cls(node, "unhealthy", (reason,), ready=False, subsystems=each, answered=False, asked_at=asked_at)


class Neighbours(Thread):
    """Asks every worker that can be reached how it is."""

    def __init__(self, nodes: Callable[[], Sequence[Node]], token: str | None, book: Book) -> None:
        """Ask those that `nodes` gives."""
        super().__init__("gaia-rounds", leave_s=1.0)
        self._nodes = nodes
        self._token = token
        self._book = book
        self._ready = book.gauge("gaia_node_ready", "1 if a worker consumes, as it says itself; else 0.", "worker")
        self._health = book.gauge(
            "gaia_subsystem_workers", "Workers of a subsystem, by how it is there.", "subsystem", "status"
        )
        self._crew = Crew(ASKED_AT_ONCE, "gaia-neighbour")
        self._handing = threading.BoundedSemaphore(HANDED_ON_AT_ONCE)
        self._handing_silent = threading.BoundedSemaphore(SILENT_AT_ONCE)
        self._reports: tuple[Report, ...] = ()

    @property
    def reports(self) -> tuple[Report, ...]:
        """What the last round told; what is too old to be true says so."""
        now = time.monotonic()
        return tuple(
            Report.silent(each.node, f"not asked for {now - each.asked_at:.0f} s", each.asked_at)
            if each.answered and now - each.asked_at > REPORT_LIFE_S
            else each
            for each in self._reports
        )

    def known(self) -> list[Node]:
        """Give the workers whose pages can be reached from here."""
        return [each for each in self._nodes() if is_reachable(each)]

    def page(self, name: str, path: str, bound_s: float = PAGE_BOUND_S, take: Take | None = None) -> Page | None:
        """Give a page of a worker as it gave it; None if no such worker can be reached. `take` is as in `asking`."""
        node = next((each for each in self.known() if each.name == name), None)
        if node is None:
            return None
        try:
            found = self._asked(node, path, bound_s, PAGE_BYTES if take is None else PROFILE_BYTES, take)
        except (OSError, HTTPException, ValueError) as failure:
            return Page(f"the worker gave no answer: {type(failure).__name__}\n".encode(), HTTPStatus.BAD_GATEWAY)
        if not KINDS.fullmatch(found.kind):
            return Page(b"the worker's page is of a kind that is not handed on\n", HTTPStatus.BAD_GATEWAY)
        return found

    def handed_on(self, name: str, path: str) -> Page | None:
        """Give a page as `page` does, if not too many are asked for at once."""
        silent = {each.node.name for each in self._reports if not each.answered}
        places = self._handing_silent if name in silent else self._handing
        if not places.acquire(blocking=False):
            return CROWDED
        try:
            return self.page(name, path, PAGE_BOUND_S)
        finally:
            places.release()

    def round(self) -> None:
        """Ask everybody once, in bounded time."""
        before = {each.node.name: (not each.answered, each.asked_at) for each in self._reports}
        nodes = sorted(self.known(), key=lambda each: before.get(each.name, (False, 0.0)))
        told = self._crew.results(self._report, nodes, ROUND_S)
        # Who was not asked keeps the time of its last turn, and so is the first of the silent ones in the next.
        found = self._reports = tuple(
            report or Report.silent(node, "no answer in time", before.get(node.name, (False, 0.0))[1])
            for node, report in zip(nodes, told, strict=True)
        )
        counts: dict[tuple[str, ...], float] = {}
        for each in found:
            for name, finding in each.subsystems.items():
                key = (name, str(finding.get("status")))
                counts[key] = counts.get(key, 0.0) + 1
        with self._book.lock:
            self._ready.keep({(each.node.name,): float(each.ready) for each in found})
            self._health.keep(counts)

    def _live(self) -> None:
        while not self._closed.is_set():
            try:
                self.round()
            except Exception:
                log.exception("a round of the workers failed")
            # The first sample is a moment away: until then there is nobody to ask.
            self._closed.wait(PAUSE_S if self._reports else 0.5)

    def _report(self, node: Node) -> Report:
        begun_at = time.monotonic()
        try:
            ready = self._asked(node, "/readiness", HEALTH_BOUND_S).status == HTTPStatus.OK
            left_s = HEALTH_BOUND_S - (time.monotonic() - begun_at)
            told = json.loads(self._asked(node, "/health", left_s).body)
            status, reasons = str(told["status"]), tuple(map(str, told["reasons"]))
            found = {str(name): _finding(each) for name, each in told["subsystems"].items()}
            return Report(node, status, reasons, ready, found, asked_at=begun_at)
        except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError, RecursionError) as failure:
            return Report.silent(node, type(failure).__name__, begun_at)

    def _asked(
        self, node: Node, path: str, bound_s: float, most_bytes: int = PAGE_BYTES, take: Take | None = None
    ) -> Page:
        token = None if self._token is None else derived(self._token, node.endpoint)
        return asking.page(node.endpoint, path, bound_s=bound_s, most_bytes=most_bytes, token=token, take=take)


def _finding(told: Any) -> dict[str, Any]:
    """Read what a worker tells of one of its subsystems.

    Raises:
        TypeError, KeyError: if it is nothing of that kind.
    """
    return {"status": str(told["status"]), "reasons": [str(each) for each in told["reasons"]]}

"""The workers whose pages this monitor reaches: asked for their health in turns, and handed on by request.

Those are the workers of this machine, and those that listen on more than loopback. Where their pages are is told by
their heartbeats; an answer is bounded in time and size, and no redirect is followed.
"""

import json
import logging
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from gaia.store.nodes import Node
from tasks.monitor import asking
from tasks.monitor.series import Book
from tasks.monitor.thread import Thread
from tasks.runtime.pages import Page

ROUND_S: Final = 5.0
"""From one round to the next."""

HEALTH_BOUND_S: Final = 4.0
PAGE_BOUND_S: Final = 5.0
PAGE_BYTES: Final = 64 * 1024 * 1024
AT_ONCE: Final = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """How a worker says it is; a worker that says nothing is unhealthy."""

    node: Node
    status: str
    reasons: tuple[str, ...]
    ready: bool
    subsystems: dict[str, Any] = field(default_factory=dict)


class Neighbours(Thread):
    """Asks every worker that can be reached how it is. `reports` are those of the last round."""

    def __init__(self, nodes: Callable[[], Sequence[Node]], token: str | None, book: Book) -> None:
        """Ask those that `nodes` gives."""
        super().__init__("gaia-rounds", leave_s=HEALTH_BOUND_S)
        self._nodes = nodes
        self._token = token
        self._book = book
        self._ready = book.gauge("gaia_node_ready", "1 if a worker consumes, as it says itself; else 0.", "worker")
        self._health = book.gauge(
            "gaia_subsystem_workers", "Workers of a subsystem, by how it is there.", "subsystem", "status"
        )
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gaia-neighbour")
        self.reports: tuple[Report, ...] = ()

    def close(self) -> None:
        """End; within about the bound of an answer."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def known(self) -> list[Node]:
        """Give the workers whose pages can be reached from here."""
        return [each for each in self._nodes() if is_reachable(each)]

    def page(self, name: str, path: str, bound_s: float = PAGE_BOUND_S) -> Page | None:
        """Give a page of a worker as it gave it; None if no such worker can be reached."""
        node = next((each for each in self.known() if each.name == name), None)
        if node is None:
            return None
        try:
            return self._asked(node, path, bound_s)
        except (OSError, HTTPException, ValueError) as failure:
            return Page(f"the worker gave no answer: {type(failure).__name__}\n".encode(), 502)

    def round(self) -> None:
        """Ask everybody once."""
        self.reports = found = tuple(self._pool.map(self._report, self.known()))
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
                if not self._closed.is_set():
                    log.exception("a round of the workers failed")
            # The first sample is a moment away: until then there is nobody to ask.
            self._closed.wait(ROUND_S if self.reports else 0.5)

    def _report(self, node: Node) -> Report:
        try:
            ready = self._asked(node, "/readiness", HEALTH_BOUND_S).status == 200  # noqa: PLR2004 - OK
            told = json.loads(self._asked(node, "/health", HEALTH_BOUND_S).body)
            return Report(node, str(told["status"]), tuple(map(str, told["reasons"])), ready, dict(told["subsystems"]))
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as failure:
            reason = f"{node.name} does not answer: {type(failure).__name__}"
            gone = {"status": "unhealthy", "reasons": [reason]}
            return Report(node, "unhealthy", (reason,), ready=False, subsystems=dict.fromkeys(node.queues, gone))

    def _asked(self, node: Node, path: str, bound_s: float) -> Page:
        return asking.page(node.endpoint, path, bound_s=bound_s, most_bytes=PAGE_BYTES, token=self._token)


def is_reachable(node: Node) -> bool:
    """Say whether the pages of a worker can be reached from this machine."""
    host = urlsplit(node.endpoint).hostname
    if not host:
        return False
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return not local or node.host == socket.gethostname()

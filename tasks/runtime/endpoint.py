"""The pages of one worker: its metrics, and whether it lives, consumes and is well.

    /metrics               every metric of this process
    /liveness              200 if the loop turns; no dependency is looked at
    /readiness             200 if the worker consumes
    /health                200 if it is healthy or degraded, 503 if not, with the reasons
    /health/<subsystem>    of one of its subsystems
    /debug/pprof/...       its profiles, if a token guards them, see `tasks.runtime.profiles`

They are on loopback, at any free port, which the worker's heartbeat tells the monitor. A monitor sends no token but the
one that is good at that very address, see `tasks.runtime.tokens`.
"""

import socket
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from celery import signals

from tasks import metrics
from tasks.runtime import profiles
from tasks.runtime.pages import NOT_FOUND, WILDCARDS, Asked, Page, Server
from tasks.runtime.setup import at_setup
from tasks.runtime.tokens import derived
from tasks.runtime.vitals import Vitals

PROBES: Final = frozenset({"/liveness", "/readiness"})
"""Pages that need no token: a kubelet has none, and they say little."""


Report = Callable[[], Mapping[str, Any]]


class Endpoint:
    """The pages of this process's worker."""

    def __init__(self, vitals: Vitals, report: Report) -> None:
        """Listen nowhere yet. `report` gives `status`, `reasons` and, by `subsystems`, the same of each."""
        self._vitals = vitals
        self._report = report
        self._server: Server | None = None
        self._is_guarded = False
        self.url = ""
        """Where the pages are, as others find them."""

    def open(self, host: str, port: int, token: str | None) -> None:
        """Listen, and answer.

        Raises:
            OSError: if the port cannot be had.
        """
        self._is_guarded = token is not None
        self._server = Server(host, port, self.answer, token=token, open_to_all=PROBES)
        name = socket.gethostname() if host in WILDCARDS else f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._server.port}"
        if token is not None:
            self._server.accept(derived(token, self.url))
        self._server.start()

    def close(self) -> None:
        """Answer nothing more."""
        if self._server is not None:
            self._server.close()

    def answer(self, asked: Asked) -> Page:
        """Give a page."""
        if asked.path == "/metrics":
            return Page(metrics.exposition(), kind=metrics.CONTENT_TYPE)
        if asked.path == "/liveness":
            return verdict("alive", "dead", self._vitals.dead())
        if asked.path == "/readiness":
            return verdict("ready", "unready", self._vitals.unready())
        if asked.path == "/health":
            return health(self._report())
        if asked.path.startswith(profiles.PREFIX):
            return profiles.answer(asked) if self._is_guarded else profiles.OFF
        name = asked.path.removeprefix("/health/")
        found = self._report()["subsystems"].get(name) if name != asked.path else None
        return NOT_FOUND if found is None else health(found)


def verdict(good: str, bad: str, reasons: list[str]) -> Page:
    """Make the page of a probe."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return Page.of({"status": bad if reasons else good, "reasons": reasons}, status)


def health(report: Mapping[str, Any]) -> Page:
    """Make the page of a report."""
    unhealthy = report["status"] == "unhealthy"
    return Page.of(report, HTTPStatus.SERVICE_UNAVAILABLE if unhealthy else HTTPStatus.OK)


def install(endpoint: Endpoint, vitals: Vitals, host: str, port: int, token: str | None) -> None:
    """Hook into the life of every worker of this process; before `tasks.runtime.node`, which tells of the address."""

    def on_setup(instance: Any, **_: Any) -> None:
        vitals.attach(instance)
        try:
            endpoint.open(host, port, token)
        except OSError as failure:
            sys.exit(
                f"gaia: the worker's pages cannot have port {port} on {host} ({failure.strerror}): "
                "choose another with GAIA_WORKER__PORT, or 0 for any free one"
            )

    at_setup(on_setup)
    signals.worker_ready.connect(lambda **_: vitals.started(), weak=False)
    signals.worker_shutting_down.connect(lambda **_: vitals.ending(), weak=False)
    signals.worker_shutdown.connect(lambda **_: endpoint.close(), weak=False)

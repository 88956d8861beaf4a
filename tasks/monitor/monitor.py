"""The monitor: its threads, and its pages.

/                            this text
/metrics                     the cluster's metrics; nobody is asked for them
/targets                     the workers, as Prometheus' http_sd_config wants them: each is scraped through here
/workers                     who lives, and how each is
/workers/<node>/<page>       a worker's own page, as `metrics`, `health`, `readiness`
/health, /health/<subsystem> the cluster's health, with reasons
/readiness                   200 if every subsystem that is served has a worker that consumes
/dashboard                   the dashboards, drawn from the figures of a Prometheus
/api/v1/query, query_range   that Prometheus, asked for them
/liveness                    200 while the monitor's threads live
/debug/pprof/<page>          profiles of workers, by ?worker= or ?queue=, if a token guards them
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from config.monitor_options import bearer
from config.settings import Settings
from gaia.store.nodes import Node
from tasks.monitor import dashboard, questions
from tasks.monitor.calls import Calls
from tasks.monitor.fleet import Fleet
from tasks.monitor.listener import Listener
from tasks.monitor.neighbours import Neighbours, Report
from tasks.monitor.questions import Questions
from tasks.monitor.sampler import Sampler
from tasks.monitor.series import CONTENT_TYPE, Book
from tasks.runtime import profiles
from tasks.runtime.endpoint import PROBES, health, verdict
from tasks.runtime.pages import NOT_FOUND, WILDCARDS, Asked, Page, Server, reached
from tasks.scope import Clock

HANDED_ON: Final = frozenset({"metrics", "health", "readiness", "liveness"})
"""Pages of workers that the monitor hands on, besides those below `health/`."""

OPEN_TO_ALL: Final = frozenset({*PROBES, "/", "/dashboard"})
"""A browser cannot send a token with the first request. The page itself holds no figure; it asks for the token."""

AT_ONCE: Final = 64
"""Answers at once. Those that wait for others take 10 (`questions`), 32 (`neighbours`) and 4 (`fleet`) at most."""

RANKS: Final = ("healthy", "degraded", "unhealthy")

MISSED_S: Final = 600.0
"""A subsystem that had a worker is missed for so long after its last one has gone."""


class Monitor:
    """Everything of one monitor process. `start`, then `close`."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Listen, and do nothing yet.

        Raises:
            SettingsError: if others could reach the pages without a token.
            OSError: if the port cannot be had.
        """
        own = settings.monitor
        self._monotonic = (clock or Clock()).monotonic
        token = bearer(settings, own.host, "GAIA_MONITOR__HOST")
        self._book = Book()
        self._calls = Calls(self._book, clock)
        self._listener = Listener(settings.redis_url, self._calls, self._book, clock)
        self._sampler = Sampler(settings.redis_url, own, self._calls, self._book, clock)
        self._neighbours = Neighbours(self._nodes, token, self._book)
        self._fleet = Fleet(self._neighbours.known, self._neighbours.page)
        self._questions = Questions(own.prometheus)
        self._sample_age = self._book.gauge("gaia_monitor_sample_age_seconds", "Since Redis was last looked at.")
        self._lag = self._book.gauge(
            "gaia_monitor_event_lag_seconds", "How late the latest event of a minute was heard."
        )
        self._pending = self._book.gauge("gaia_monitor_tasks_under_way", "Tasks that are remembered until they end.")
        self._served_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._host = own.host
        self._is_guarded = token is not None
        self._server = Server(own.host, own.port, self.answer, token=token, open_to_all=OPEN_TO_ALL, at_once=AT_ONCE)

    @property
    def port(self) -> int:
        """The port of the pages."""
        return self._server.port

    def start(self) -> None:
        """Begin to hear, look, ask and answer."""
        self._listener.start()
        self._sampler.start()
        self._neighbours.start()
        self._server.start()

    def close(self) -> None:
        """End everything; within some seconds."""
        self._server.close()
        self._neighbours.close()
        self._sampler.close()
        self._listener.close()

    def answer(self, asked: Asked) -> Page:
        """Give a page."""
        pages: dict[str, Callable[[], Page]] = {
            "/": lambda: Page(str(__doc__).encode()),
            "/metrics": self._metrics,
            "/targets": lambda: self._targets(asked.host),
            "/workers": self._workers,
            "/dashboard": dashboard.served,
            **dict.fromkeys(questions.PATHS, lambda: self._questions.answer(asked)),
            "/health": lambda: health(self.health()),
            "/readiness": lambda: verdict("ready", "unready", self.unready()),
            "/liveness": lambda: verdict("alive", "dead", self.dead()),
        }
        if asked.path in pages:
            return pages[asked.path]()
        if asked.path.startswith("/health/"):
            found = self.health()["subsystems"].get(asked.path.removeprefix("/health/"))
            return NOT_FOUND if found is None else health(found)
        if asked.path.startswith(profiles.PREFIX):
            if not self._is_guarded:
                return profiles.OFF
            return self._fleet.answer(asked)
        return self._handed_on(asked.path)

    # --- verdicts

    def dead(self) -> list[str]:
        """Give why the monitor should be killed."""
        alive = {
            "events": self._listener.alive(),
            "samples": self._sampler.alive(),
            "rounds": self._neighbours.alive(),
        }
        return [f"the thread of the {name} has ended" for name, lives in alive.items() if not lives]

    def unready(self) -> list[str]:
        """Give what is not served."""
        found = self.health()
        if not found["subsystems"]:
            return found["reasons"] or ["no worker lives"]
        missing = [f"{name}: no worker consumes" for name, each in found["subsystems"].items() if not each["ready"]]
        return [*self._blind(), *missing]

    def health(self) -> dict[str, Any]:
        """Give the health of the cluster: that of its subsystems, and of Redis as the monitor sees it."""
        blind = self._blind()
        found = {name: self._subsystem(name, nodes) for name, nodes in sorted(self._subsystems().items())}
        told = [f"{name}: {reason}" for name, each in found.items() for reason in each["reasons"]]
        status = max((each["status"] for each in found.values()), key=RANKS.index, default="healthy")
        return {"status": "unhealthy" if blind else status, "reasons": blind + told, "subsystems": found}

    def _blind(self) -> list[str]:
        if not self._sampler.stale():
            return []
        return [f"Redis has not answered the monitor for {self._sampler.age_s():.0f} s"]

    def _subsystems(self) -> dict[str, list[Node]]:
        """Give the queues that are served, or were of late, or in which something waits, and by whom."""
        sample, now = self._sampler.latest, self._monotonic()
        served = {} if sample is None else sample.served()
        waiting = [] if sample is None else [name for name in sample.ours if sample.waiting.get(name)]
        with self._lock:
            self._served_at |= dict.fromkeys(served, now)
            self._served_at = {name: at for name, at in self._served_at.items() if now - at <= MISSED_S}
            return {name: served.get(name, []) for name in {*self._served_at, *waiting} if name}

    def _subsystem(self, name: str, nodes: Sequence[Node]) -> dict[str, Any]:
        """Say how a subsystem is: as well as its best worker, degraded if another is worse."""
        if not nodes:
            return {"status": "unhealthy", "reasons": ["no worker serves it"], "ready": 0, "workers": 0}
        reports = {each.node.name: each for each in self._neighbours.reports}
        known = [reports[each.name] for each in nodes if each.name in reports]
        told = [(report, *_of(report, name)) for report in known]
        reasons = [f"{report.node.name}: {reason}" for report, _, found in told for reason in found]
        # Of workers on other machines that cannot be asked, the heartbeat is what is known.
        unknown = len(nodes) - len(known)
        ready = sum(report.ready for report in known) + unknown
        ranks = [RANKS.index(status) for _, status, _ in told] + [0] * unknown
        best, worst = min(ranks), max(ranks)
        status = RANKS[best] if best == worst else "degraded"
        return {"status": status if ready else "unhealthy", "reasons": reasons, "ready": ready, "workers": len(nodes)}

    # --- pages

    def _nodes(self) -> tuple[Node, ...]:
        return () if self._sampler.latest is None else self._sampler.latest.nodes

    def _metrics(self) -> Page:
        with self._book.lock:
            self._sample_age.of().set(round(self._sampler.age_s(), 3))
            self._lag.of().set(round(self._listener.lag_s(), 3))
            self._pending.of().set(self._calls.under_way)
        return Page(self._book.text(), kind=CONTENT_TYPE)

    def _targets(self, asked_as: str) -> Page:
        # Whoever asks a monitor that listens everywhere reaches it by the name that was used for that.
        here = asked_as if self._host in WILDCARDS and asked_as else self._here()
        return Page.of(
            [
                {
                    "targets": [here],
                    "labels": {
                        "__metrics_path__": f"/workers/{quote(each.name, safe='@')}/metrics",
                        "instance": each.name,
                        "worker": each.name,
                        "queues": ",".join(each.queues),
                    },
                }
                for each in self._neighbours.known()
            ]
        )

    def _here(self) -> str:
        host = reached(self._host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _workers(self) -> Page:
        reports = {each.node.name: each for each in self._neighbours.reports}
        rows = []
        for each in self._nodes():
            report = reports.get(each.name)
            rows.append(
                {
                    "node": each.name,
                    "boot": each.boot,
                    "queues": each.queues,
                    "concurrency": each.concurrency,
                    "status": "unknown" if report is None else report.status,
                    "ready": None if report is None else report.ready,
                    "reasons": [] if report is None else report.reasons,
                }
            )
        return Page.of(rows)

    def _handed_on(self, path: str) -> Page:
        _, _, rest = path.partition("/workers/")
        name, _, page = rest.partition("/")
        if page not in HANDED_ON and not (page.startswith("health/") and page.removeprefix("health/").isalnum()):
            return NOT_FOUND
        return self._neighbours.handed_on(unquote(name), f"/{page}") or NOT_FOUND


def _of(report: Report, name: str) -> tuple[str, list[str]]:
    """Give status and reasons of one subsystem on one worker."""
    if not report.ready:
        own = [each for each in report.reasons if not each.startswith(f"{name}: ")]
        return "unhealthy", own or ["it does not consume"]
    found = report.subsystems.get(name, {"status": report.status, "reasons": list(report.reasons)})
    return (found["status"] if found["status"] in RANKS else "unhealthy"), list(found["reasons"])

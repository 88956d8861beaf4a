"""Profiles through the monitor: of one worker, or of all workers of a queue at once, added up."""

import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from gaia.store.nodes import Node
from tasks.monitor.asking import Take
from tasks.monitor.crew import Crew
from tasks.profiling.profile import Profile
from tasks.runtime.pages import Asked, Page
from tasks.runtime.profiles import FORMS, PREFIX, TAKERS, wanted

MARGIN_S: Final = 15.0
"""Beyond its seconds, for a profile to be written and sent."""

MOST: Final = 64
"""Workers that are asked at once; more are not asked."""

AT_ONCE: Final = 4
"""Requests that are answered at once; further ones are refused."""

BYTES: Final = 64 * 1024 * 1024
"""What the workers may send for one request, together."""

CROWDED: Final = Page(b"too many profiles are asked for at once\n", HTTPStatus.SERVICE_UNAVAILABLE)

Ask = Callable[[str, str, float, Take], Page | None]
"""Gives a page of a worker by name, path and bound."""


class Fleet:
    """Thread-safe."""

    def __init__(self, known: Callable[[], Sequence[Node]], ask: Ask) -> None:
        """Ask those that are known."""
        self._known = known
        self._ask = ask
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._crew = Crew(AT_ONCE * MOST, "gaia-profile")

    def answer(self, asked: Asked) -> Page:
        """Give a page below `PREFIX` of the workers that `worker`, a node, or `queue` names."""
        nodes = self._known()
        worker, queue = asked.query.get("worker"), asked.query.get("queue")
        chosen = [each.name for each in nodes if each.name == worker or (queue is not None and queue in each.queues)]
        if not chosen:
            names = ", ".join(each.name for each in nodes) or "none"
            told = f"no worker is called {worker}" if worker else "name a worker by ?worker= or ?queue="
            told = f"no worker serves the queue {queue}" if queue and not worker else told
            return Page(f"{told}; there are: {names}\n".encode("utf-8", "replace"), HTTPStatus.NOT_FOUND)
        if not self._places.acquire(blocking=False):
            return CROWDED
        try:
            name = asked.path.removeprefix(PREFIX)
            return self._profile(name, asked, chosen) if name in TAKERS else self._texts(asked.path, chosen)
        finally:
            self._places.release()

    def _texts(self, path: str, chosen: Sequence[str]) -> Page:
        pages = self._pages(chosen, path, MARGIN_S)
        parts = [
            f"=== {name}\n".encode() + (b"no answer in time\n" if page is None else page.body)
            for name, page in zip(chosen, pages, strict=True)
        ]
        return Page(b"\n".join(parts))

    def _profile(self, name: str, asked: Asked, chosen: Sequence[str]) -> Page:
        try:
            seconds, form = wanted(name, asked.query)
        except ValueError as failure:
            return Page(f"{failure}\n".encode(), HTTPStatus.BAD_REQUEST)
        path = f"{asked.path}?{urlencode({'seconds': seconds, 'format': 'json'})}"
        pages = self._pages(chosen, path, seconds + MARGIN_S)
        good = [each for each in pages if each is not None and each.status == HTTPStatus.OK]
        if not good:
            said = next((each for each in pages if each is not None), None)
            return said or Page(b"no worker answered\n", HTTPStatus.BAD_GATEWAY)
        write, kind = FORMS[form]
        # One is read after the other: an object is many times as large as its text.
        body = write(Profile.merged(Profile.read(each.body) for each in good))
        return Page(body, kind=kind, fields={"Gaia-Workers": f"{len(good)} of {len(chosen)}"})

    def _pages(self, chosen: Sequence[str], path: str, bound_s: float) -> list[Page | None]:
        """Ask workers at once; None for who has not answered in time, and for those beyond `MOST`."""
        take = _Together(BYTES).take
        found = self._crew.results(lambda each: self._ask(each, path, bound_s, take), chosen[:MOST], bound_s + 1.0)
        return [*found, *[None] * len(chosen[MOST:])]


class _Together:
    """Bytes of several pages, bounded as one."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        with self._lock:
            self._left -= count
            if self._left < 0:
                raise ValueError("the pages are too large together")

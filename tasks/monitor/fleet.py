"""Profiles through the monitor: of one worker, or of all workers of a queue at once, added up."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from gaia.store.nodes import Node
from tasks.profiling.profile import Profile
from tasks.runtime.pages import Asked, Page
from tasks.runtime.profiles import FORMS, PREFIX, TAKERS, wanted

MARGIN_S: Final = 15.0
"""Beyond its seconds, for a profile to be written and sent."""

MOST: Final = 64
"""Workers that are asked at once."""

Ask = Callable[[str, str, float], Page | None]
"""Gives a page of a worker by name, path and bound."""


def answer(asked: Asked, nodes: Sequence[Node], ask: Ask) -> Page:
    """Give a page below `PREFIX` of the workers that `worker`, a node, or `queue` names."""
    worker, queue = asked.query.get("worker"), asked.query.get("queue")
    chosen = [each.name for each in nodes if each.name == worker or (queue is not None and queue in each.queues)]
    if not chosen:
        names = ", ".join(each.name for each in nodes) or "none"
        told = f"no worker is called {worker}" if worker else "name a worker by ?worker= or ?queue="
        told = f"no worker serves the queue {queue}" if queue and not worker else told
        return Page(f"{told}; there are: {names}\n".encode("utf-8", "replace"), HTTPStatus.NOT_FOUND)
    name = asked.path.removeprefix(PREFIX)
    if name not in TAKERS:
        texts = [(each, ask(each, asked.path, MARGIN_S)) for each in chosen]
        parts = [f"=== {each}\n".encode() + page.body for each, page in texts if page is not None]
        return Page(b"\n".join(parts))
    try:
        seconds, form = wanted(name, asked.query)
    except ValueError as failure:
        return Page(f"{failure}\n".encode(), HTTPStatus.BAD_REQUEST)
    path = f"{asked.path}?{urlencode({'seconds': seconds, 'format': 'json'})}"
    with ThreadPoolExecutor(min(MOST, len(chosen)), thread_name_prefix="gaia-profile") as pool:
        pages = list(pool.map(lambda each: ask(each, path, seconds + MARGIN_S), chosen))
    profiles = [Profile.read(each.body) for each in pages if each is not None and each.status == HTTPStatus.OK]
    if not profiles:
        said = next((each for each in pages if each is not None), None)
        return said or Page(b"no worker answered\n", HTTPStatus.BAD_GATEWAY)
    write, kind = FORMS[form]
    return Page(write(Profile.merged(profiles)), kind=kind)

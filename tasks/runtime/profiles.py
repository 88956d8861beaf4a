"""The profiles of one worker, under the paths that Go's programs have: `/debug/pprof/...`.

    profile?seconds=30    CPU by stack       heap?seconds=5    what was allocated meanwhile and lives still
    waits?seconds=10      where threads wait, and how late loops are
    threads               every stack        gc                what the collector holds        tasks    what runs

`format` of the first three is pprof, speedscope, svg, folded or json, of waits text too. There is none of it without a
token, and one profile at a time.
"""

import gc
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from celery.worker import state

from tasks.metrics import LOOP_LAG
from tasks.profiling.formats import FORMATS
from tasks.profiling.heap import heap
from tasks.profiling.profile import Frame, Profile
from tasks.profiling.sampling import sample
from tasks.profiling.waits import LAG, text, waits
from tasks.runtime.pages import NOT_FOUND, TEXT, Asked, Page

PREFIX: Final = "/debug/pprof/"

LONGEST_S: Final = 300.0
TYPES_SHOWN: Final = 40

OFF: Final = Page(b"profiles are off: set GAIA_MONITOR__TOKEN\n", HTTPStatus.NOT_FOUND)

FORMS: Final = {**FORMATS, "text": (text, TEXT)}
"""How a profile can be had; text is of waits alone."""


def _waits(seconds: float) -> Profile:
    """Watch the threads, and how late the loops are meanwhile."""
    before = _lags()
    found = waits(seconds)
    for name, lag in _lags().items():
        count, late_s = (now - then for now, then in zip(lag, before.get(name, (0.0, 0.0)), strict=True))
        found.add((Frame(LAG, "", 0), Frame(name, "", 0)), count, 1e9 * late_s)
    return found


def _lags() -> dict[str, tuple[float, float]]:
    """Give how many timers each loop ran, and how late they were together."""
    figures = {(each.name, each.labels.get("loop", "")): each.value for each in next(iter(LOOP_LAG.collect())).samples}
    counts = {loop: value for (name, loop), value in figures.items() if name.endswith("_count")}
    return {loop: (count, figures["gaia_loop_lag_seconds_sum", loop]) for loop, count in counts.items()}


TAKERS: Final[dict[str, tuple[Callable[[float], Profile], float]]] = {
    "profile": (sample, 30.0),
    "heap": (heap, 5.0),
    "waits": (_waits, 10.0),
}
"""What takes a profile, and for how many seconds unless the request says."""

_busy: Final = threading.Lock()


def answer(asked: Asked) -> Page:
    """Give a page below `PREFIX`."""
    name = asked.path.removeprefix(PREFIX)
    if name in TAKERS:
        return _taken(name, asked.query)
    page = {"": _index, "threads": threads, "goroutine": threads, "gc": collector, "tasks": calls}.get(name)
    return NOT_FOUND if page is None else Page(page().encode("utf-8", "replace"))


def wanted(name: str, query: dict[str, str]) -> tuple[float, str]:
    """Give the seconds and the format that a request asks for.

    Raises:
        ValueError: with a sentence, if it asks for what is not there.
    """
    forms = FORMS if name == "waits" else FORMATS
    form = query.get("format", "text" if name == "waits" else "pprof")
    if form not in forms:
        raise ValueError(f"format must be one of {', '.join(forms)}")
    try:
        seconds = float(query.get("seconds", TAKERS[name][1]))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(f"seconds must be more than 0 and at most {LONGEST_S:g}")
    return seconds, form


def _taken(name: str, query: dict[str, str]) -> Page:
    try:
        seconds, form = wanted(name, query)
    except ValueError as failure:
        return Page(f"{failure}\n".encode(), HTTPStatus.BAD_REQUEST)
    if not _busy.acquire(blocking=False):
        return Page(b"a profile is being taken: one at a time\n", HTTPStatus.CONFLICT)
    try:
        found = TAKERS[name][0](seconds)
    except OSError as failure:
        if name != "waits":  # the others ask the kernel nothing: what fails is a defect, or this machine
            raise
        return Page(f"the kernel does not tell: {failure}\n".encode(), HTTPStatus.NOT_IMPLEMENTED)
    finally:
        _busy.release()
    write, kind = FORMS[form]
    return Page(write(found), kind=kind)


def _index() -> str:
    return str(__doc__)


def threads() -> str:
    """Give the stack of every thread, as text."""
    names = {each.ident: each.name for each in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the one way to see the stacks of other threads
        # Without the lines of the source, and without any value.
        lines = [f"  {each.filename}:{each.lineno} {each.name}\n" for each in traceback.extract_stack(frame)]
        parts.append(f"{names.get(ident, 'unknown')} ({ident})\n{''.join(reversed(lines))}")
    return f"{len(parts)} threads\n\n" + "\n".join(sorted(parts))


def collector() -> str:
    """Give what the garbage collector has done and holds."""
    lines = [
        f"generation {number}: {each['collections']} collections, {each['collected']} collected"
        for number, each in enumerate(gc.get_stats())
    ]
    types = Counter(type(each).__qualname__ for each in gc.get_objects())
    rows = [f"{count:>9} {name}" for name, count in types.most_common(TYPES_SHOWN)]
    return "\n".join([*lines, f"waiting: {gc.get_count()}, thresholds: {gc.get_threshold()}", "", *rows, ""])


def calls() -> str:
    """Give what runs: operation, id and for how long; no argument."""
    now = time.time()
    rows = [(now - _started(each, now), each.name, each.id) for each in list(state.active_requests)]
    lines = [f"{age:10.3f} s {name} {call_id}\n" for age, name, call_id in sorted(rows, reverse=True)]
    return f"{len(rows)} calls\n" + "".join(lines)


def _started(request: Any, now: float) -> float:
    return float(vars(request).get("time_start") or now)

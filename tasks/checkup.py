"""How the subsystems of this worker are: each one's own `health` operation, asked with a bound.

A subsystem that has such an operation is asked by it, without the queue; one that has none is as well as its worker.
What all of them need, as the directory of large bodies, is looked at once and told with each.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from gaia.errors import GaiaError
from tasks.scope import Clock, Scope
from tasks.wiring import HANDLERS, Handler

BOUND_S: Final = 2.0
"""How long a report waits for a subsystem to say how it is; after that it tells what was said last."""

LOOK_S: Final = 20.0
"""How long a look itself may take: that of the browser opens a page, and first of all a browser."""

KEPT_S: Final = 2.0
SHARE: Final = 0.01
MOST_KEPT_S: Final = 60.0
"""A finding is as good for so long, so that probes cost next to nothing: a dear look is repeated less often, so that
looking takes a hundredth of the time, but once a minute it is."""

RANKS: Final = ("healthy", "degraded", "unhealthy")

log = logging.getLogger(__name__)

SHARED: Final = ""
"""What stands for no subsystem: the look at what all of them need."""

Finding = dict[str, Any]


def worst(findings: Sequence[Mapping[str, Any]]) -> str:
    """Give the worst status of some; of none, healthy."""
    return max((each["status"] for each in findings), key=RANKS.index, default="healthy")


class Checkup:
    """The reports of one worker. Thread-safe: two that ask at once share one look."""

    def __init__(
        self,
        queues: Callable[[], Sequence[str]],
        unready: Callable[[], list[str]],
        clock: Clock,
        troubles: Callable[[], list[str]] = list,
    ) -> None:
        """Look at the subsystems of the queues that are consumed, and at whether they are.

        `troubles` says what is wrong with what all of them need: each of them is degraded by it.
        """
        self._queues = queues
        self._troubles = troubles
        self._unready = unready
        self._monotonic = clock.monotonic
        self._lock = threading.Lock()
        self._looks: dict[str, _Look] = {}
        self._said: dict[str, Finding] = {}

    def report(self) -> Finding:
        """Give status, reasons and subsystems; within `BOUND_S` a subsystem."""
        with self._lock:
            shared = self._of(SHARED)
            found = {each: _together(self._of(each), shared) for each in self._queues()}
        reasons = self._unready()
        own = [{"status": "unhealthy"}] if reasons else []
        told = [f"{name}: {reason}" for name, each in found.items() for reason in each["reasons"]]
        return {"status": worst([*own, *found.values()]), "reasons": reasons + told, "subsystems": found}

    def _of(self, queue: str) -> Finding:
        look = self._looks.get(queue)
        if look is None or look.is_stale(self._monotonic()):
            look = self._looks[queue] = _Look(queue, self._ask(queue), self._monotonic)
            look.done.wait(BOUND_S)
        if look.finding is not None:
            self._said[queue] = look.finding
        waited_s = self._monotonic() - look.begun_at
        if queue in self._said and (look.finding is not None or waited_s <= LOOK_S):
            return self._said[queue]
        return {"status": "degraded", "reasons": [f"it has not said how it is for {waited_s:.0f} s"]}

    def _ask(self, queue: str) -> "Callable[[], Finding] | None":
        if queue == SHARED:
            return self._shared
        handler = HANDLERS.get(f"{queue}.health")
        return None if handler is None else partial(_asked, handler)

    def _shared(self) -> Finding:
        reasons = self._troubles()
        return {"status": "degraded" if reasons else "healthy", "reasons": reasons}


class _Look:
    """One look at a subsystem, in a thread of its own: it may wait for a disk that hangs."""

    def __init__(self, queue: str, ask: Callable[[], Finding] | None, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.begun_at = self._ended_at = monotonic()
        self.finding: Finding | None = None
        self.done = threading.Event()
        if ask is None:
            self._end({"status": "healthy", "reasons": []})
        else:
            threading.Thread(target=self._look, args=(ask,), name=f"gaia-health-{queue}", daemon=True).start()

    def is_stale(self, now: float) -> bool:
        """Say whether it is time for another one."""
        kept_s = min(MOST_KEPT_S, max(KEPT_S, (self._ended_at - self.begun_at) / SHARE))
        return self.finding is not None and now - self._ended_at > kept_s

    def _look(self, ask: Callable[[], Finding]) -> None:
        try:
            self._end(ask())
        except GaiaError as failure:
            self._end({"status": "unhealthy", "reasons": [str(failure)]})
        except Exception as failure:
            log.exception("a subsystem could not say how it is")
            self._end({"status": "unhealthy", "reasons": [f"it failed with {type(failure).__name__}"]})

    def _end(self, finding: Finding) -> None:
        self._ended_at = self._monotonic()
        self.finding = finding
        self.done.set()


def _asked(handler: Handler) -> Finding:
    contract = handler.contract
    return _read(handler.perform(contract(), Scope.lasting(LOOK_S, operation=contract.OPERATION)))


def _together(own: Finding, shared: Finding) -> Finding:
    return {"status": worst([own, shared]), "reasons": [*own["reasons"], *shared["reasons"]]}


def _read(told: Any) -> Finding:
    """Read a result of a `health` operation: subsystems say the same in words of their own."""
    if hasattr(told, "healthy"):
        return {"status": "healthy" if told.healthy else "unhealthy", "reasons": [told.reason] if told.reason else []}
    status = told.status if hasattr(told, "status") else told.state
    if hasattr(told, "checks"):
        reasons = [f"{each.name}: {each.detail}" for each in told.checks if not each.ok]
    else:
        reasons = list(told.reasons if hasattr(told, "reasons") else told.findings)
    return {"status": status, "reasons": [] if status == "healthy" else reasons}

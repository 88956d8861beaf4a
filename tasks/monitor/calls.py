"""What becomes of tasks, told by the events of all workers, stock ones too; and which workers live.

The `celery_*` names, their labels `name`, `hostname`, `queue_name` and `exception`, and what they count are those of
danihodovic's celery-exporter, so that its dashboards and alerts work. Beyond it: `worker` is the whole name of the
node, where `hostname` alone made one of all workers of a machine; run times of failures count, by `outcome`; the wait
is told by our workers themselves, so that no producer has to send events.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gaia import wire
from tasks.monitor.series import MOST_VALUES, OTHER, Book
from tasks.scope import Clock

RUN_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
WAIT_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

STATES: Final = {
    "sent": "Tasks that a producer says it has sent.",
    "received": "Tasks that a worker has received.",
    "started": "Runs that began.",
    "succeeded": "Runs that succeeded.",
    "failed": "Runs that failed.",
    "rejected": "Tasks that a worker gave back or turned down.",
    "revoked": "Tasks that were revoked.",
    "retried": "Runs that failed and are followed by another.",
}

TIMEOUT_S: Final = 60.0
"""A worker that was not heard of for so long is down."""

PURGED_S: Final = 600.0
"""And its series are forgotten after so long, of which Redis answered all the time."""

UNDER_WAY: Final = 100_000
"""Tasks that are remembered until they end; of the oldest beyond that the run time is lost."""

DEFAULT_QUEUE: Final = "celery"

_CLASS = re.compile(r"[A-Za-z_]\w{0,63}(?=\(|$)")
_LABELS: Final = ("name", "hostname", "worker", "queue_name")
_RUN_ENDS: Final = frozenset({"succeeded", "failed", "retried"})


class _Task(NamedTuple):
    name: str
    queue: str
    sent_at: float | None = None
    started_at: float | None = None


@dataclass
class _Worker:
    heard_at: float
    up: bool = True


class Calls:
    """Turns events into series. Whoever calls holds the book's lock."""

    def __init__(self, book: Book, clock: Clock | None = None) -> None:
        """Enter the families."""
        self._monotonic = (clock or Clock()).monotonic
        self._counters = {
            state: book.counter(
                f"celery_task_{state}_total", text, *_LABELS, *(["exception"] if state == "failed" else [])
            )
            for state, text in STATES.items()
        }
        self._runtime = book.histogram(
            "celery_task_runtime", "Run time in seconds, by how the run ended.", RUN_BOUNDS, *_LABELS, "outcome"
        )
        self._wait = book.histogram(
            "celery_task_queue_wait_time",
            "Seconds from submit to the first start, without what a producer asked to be delayed.",
            WAIT_BOUNDS,
            *_LABELS,
        )
        own = ("hostname", "worker")
        self._up = book.gauge("celery_worker_up", "1 if a worker was heard of within a minute, else 0.", *own)
        self._active = book.gauge("celery_worker_tasks_active", "Tasks that a worker runs.", *own)
        self._heard = book.counter("gaia_monitor_events_total", "Events heard.", "type")
        self._odd = book.counter("gaia_monitor_events_odd_total", "Messages that were no events, or not readable.")
        self._book = book
        self._tasks: OrderedDict[str, _Task] = OrderedDict()
        self._workers: dict[str, _Worker] = {}
        self._names: set[str] = set()
        self._blind_at = float("-inf")

    def hear(self, event: Any) -> None:
        """Take an event; what is none is counted and left alone."""
        kind = event.get("type") if isinstance(event, dict) else None
        group, _, what = str(kind).partition("-")
        try:
            if group == "task" and what in STATES:
                self._hear_of_task(what, event)
            elif group == "worker":
                self._hear_of_worker(what, event)
            else:
                what = OTHER
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError):
            self._odd.of().add()
            return
        self._heard.of(f"{group}-{what}" if what != OTHER else OTHER).add()

    def odd(self) -> None:
        """Count a message that holds no events."""
        self._odd.of().add()

    def lives(self, worker: str) -> None:
        """Say that a worker lives, by its heartbeat in Redis."""
        self._seen(worker)

    def look(self, *, blind: bool = False) -> None:
        """See who was not heard of for long; `blind` if nobody could be heard, as Redis did not answer."""
        now = self._monotonic()
        if blind:
            self._blind_at = now
        # Who died in an outage is told of after it: until then nobody knows who did.
        gone = {name for name, each in self._workers.items() if now - max(each.heard_at, self._blind_at) > PURGED_S}
        if gone:
            self._purge(gone)
        for name, worker in self._workers.items():
            if worker.up and now - worker.heard_at > TIMEOUT_S:
                self._down(name, worker)

    @property
    def under_way(self) -> int:
        """How many tasks are remembered."""
        return len(self._tasks)

    # --- tasks

    def _hear_of_task(self, state: str, event: Mapping[str, Any]) -> None:
        task_id, at, worker = str(event["uuid"]), _finite(event["timestamp"]), str(event["hostname"])
        known = self._tasks.get(task_id)
        name = event.get("name") or (known.name if known else OTHER)
        task = known or _Task(str(name)[:200], _queue(str(name), event))
        if state == "sent":
            task = task._replace(sent_at=at, queue=_queue(task.name, event))
            # A producer's name holds its process id: a series each would never end.
            labels = (task.name, host_of(worker), "", task.queue)
        else:
            self._seen(worker)
            labels = (task.name, host_of(worker), worker, task.queue)
        if state == "started":
            self._observe_wait(labels, task, event, at)
            task = task._replace(started_at=at)
        if state in _RUN_ENDS:
            self._observe_run(labels, task, event, state, at)
        self._count(state, labels, event)
        if state in {"sent", "received", "started", "retried"}:
            self._remember(task_id, task)
        else:
            self._tasks.pop(task_id, None)

    def _count(self, state: str, labels: tuple[str, ...], event: Mapping[str, Any]) -> None:
        if state != "sent" and labels not in self._counters["received"]._series:  # noqa: SLF001 - the other half of `of`
            # A counter that begins with 1 shows no increase: so all of them begin at 0.
            for each in STATES.keys() - {"sent", "failed"}:
                self._counters[each].of(*labels)
        if state == "failed":
            found = _CLASS.match(str(event.get("exception", "")))
            self._counters[state].of(*labels, found[0] if found else OTHER).add()
        else:
            self._counters[state].of(*labels).add()

    def _observe_wait(self, labels: tuple[str, ...], task: _Task, event: Mapping[str, Any], at: float) -> None:
        waited_s = event.get("waited")
        if waited_s is None and task.sent_at is not None and task.started_at is None:
            waited_s = at - task.sent_at
        if waited_s is not None:
            self._wait.of(*labels).observe(max(0.0, _finite(waited_s)))

    def _observe_run(
        self, labels: tuple[str, ...], task: _Task, event: Mapping[str, Any], state: str, at: float
    ) -> None:
        run_s = event.get("runtime")
        if run_s is None and task.started_at is not None:
            run_s = at - task.started_at
        if run_s is not None:
            self._runtime.of(*labels, state).observe(max(0.0, _finite(run_s)))

    def _remember(self, task_id: str, task: _Task) -> None:
        self._tasks[task_id] = task
        if len(self._tasks) > UNDER_WAY:
            self._tasks.popitem(last=False)

    # --- workers

    def _hear_of_worker(self, what: str, event: Mapping[str, Any]) -> None:
        name, active = str(event["hostname"]), _finite(event.get("active") or 0)
        worker = self._seen(name)
        if worker is None:
            return
        if what == "offline":
            self._down(name, worker)
        else:
            self._active.of(host_of(name), name).set(active)

    def _seen(self, name: str) -> _Worker | None:
        """Say that a worker lives; None of one beyond those that are told apart: nobody could say that it went."""
        worker = self._workers.get(name)
        if worker is None:
            if len(self._workers) >= MOST_VALUES:
                return None
            worker = self._workers[name] = _Worker(0.0)
            self._active.of(host_of(name), name)
        worker.heard_at, worker.up = self._monotonic(), True
        self._up.of(host_of(name), name).set(1)
        return worker

    def _down(self, name: str, worker: _Worker) -> None:
        worker.up = False
        self._up.of(host_of(name), name).set(0)
        self._active.of(host_of(name), name).set(0)

    def _purge(self, gone: Collection[str]) -> None:
        for name in gone:
            del self._workers[name]
        for family in self._book.families:
            family.drop("worker", gone)


def host_of(worker: str) -> str:
    """Give the machine in the name of a worker."""
    return worker.partition("@")[2] or worker


def _finite(value: Any) -> float:
    """Read a number of an event.

    Raises:
        ValueError: if it is none, or NaN or infinite, which JSON of Python's may be: a sum would be so for good.
    """
    found = float(value)
    if not math.isfinite(found):
        raise ValueError("no finite number")
    return found


def _queue(name: str, event: Mapping[str, Any]) -> str:
    """Give the queue of a task: of an operation of ours the one it is named by."""
    subsystem = name.partition(".")[0]
    return subsystem if subsystem in wire.QUEUES else str(event.get("queue") or DEFAULT_QUEUE)

"""The thread that looks at Redis: what waits, is held, delayed and dead, and who lives. A scrape asks nobody.

One script call a look, whatever the number of messages. The age of the oldest waiting call is told by when the message
that is fetched next was submitted; of messages that do not say, by how long it has been seen at that place.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError

from config.watching import Monitor
from gaia import wire
from gaia.errors import Unreachable
from gaia.store import keys
from gaia.store.connection import connect, show_url, why
from gaia.store.nodes import Node, Nodes
from gaia.store.scripts import text
from tasks.monitor.calls import Calls, host_of
from tasks.monitor.series import Book
from tasks.monitor.thread import Thread
from tasks.scope import Clock

REPLY_BOUND_S: Final = 3.0
TOLD_APART: Final = 20_000
"""Held messages that are counted by queue, which takes Redis some milliseconds; of more only the sum is known."""

OWN: Final = "gaia.node"
"""The queue name for the own queues of all nodes, together."""

STALE_SAMPLES: Final = 5
"""After so many times the pause without an answer the sample is too old to be believed."""

UNACKED: Final = "unacked"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """What a look has found. `taken_at` is monotonic."""

    taken_at: float
    nodes: tuple[Node, ...] = ()
    waiting: dict[str, int] = field(default_factory=dict)
    ours: frozenset[str] = frozenset()
    """Queues that Gaia's workers serve, or served: of others nobody knows who does."""

    def served(self) -> dict[str, list[Node]]:
        """Give the queues that are served, and by whom."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for queue in node.queues:
                found.setdefault(queue, []).append(node)
        return found


class Sampler(Thread):
    """Looks until it is closed; `latest` is the last sample."""

    def __init__(self, url: str, settings: Monitor, calls: Calls, book: Book, clock: Clock | None = None) -> None:
        """Look at the Redis at `url`."""
        super().__init__("gaia-sample", leave_s=3 * REPLY_BOUND_S)
        self._client = connect(url, reply_timeout_s=REPLY_BOUND_S, connect_timeout_s=REPLY_BOUND_S, retries=0)
        self._script = self._client.register_script(text("tasks.monitor", "sample"))
        self._nodes = Nodes(self._client, url)
        self._url, self._is_away = url, False
        self._calls, self._book = calls, book
        self._clock = clock or Clock()
        self._pause_s = settings.sample_s
        self._queues = tuple(dict.fromkeys((*wire.QUEUES, *settings.queues)))
        self._ours = set(wire.QUEUES)
        self._gauges = _Gauges(book)
        self._first_seen: dict[str, tuple[str, float]] = {}
        self._began_at = self._clock.monotonic()
        self.latest: Sample | None = None

    def close(self) -> None:
        """End; within about the bound of a reply."""
        super().close()
        self._client.close()

    def age_s(self) -> float:
        """Give the seconds since the last sample, or since the beginning."""
        taken_at = self._began_at if self.latest is None else self.latest.taken_at
        return self._clock.monotonic() - taken_at

    def stale(self) -> bool:
        """Say whether Redis has not answered for long."""
        return self.latest is None or self.age_s() > max(STALE_SAMPLES * self._pause_s, 2 * REPLY_BOUND_S)

    def look(self) -> bool:
        """Look once; False if Redis did not answer."""
        began = self._clock.monotonic()
        try:
            nodes = tuple(self._nodes.list())
            served = [name for each in nodes for name in each.queues if name]
            queues = tuple(dict.fromkeys((*self._queues, *served)))
            self._ours.update(served)
            found = self._ask(queues, nodes)
            memory: Any = self._client.info("memory")
            clients: Any = self._client.info("clients")
        except (RedisError, OSError, Unreachable) as failure:
            self._tell(failure)
            with self._book.lock:
                self._gauges.redis_up.of().set(0)
                self._calls.look(blind=True)
            return False
        self._tell(None)
        with self._book.lock:
            waiting = self._enter(found, queues, nodes)
            self._gauges.enter_redis(memory, clients)
            self._gauges.sample_seconds.of().set(round(self._clock.monotonic() - began, 6))
            for node in nodes:
                self._calls.lives(node.name)
            self._calls.look()
        self.latest = Sample(self._clock.monotonic(), nodes, waiting, frozenset(self._ours.intersection(queues)))
        return True

    def _tell(self, failure: Exception | None) -> None:
        """Log that Redis does not answer, once until it does again, and that."""
        if (failure is not None) == self._is_away:
            return
        self._is_away, where = failure is not None, show_url(self._url)
        if failure is None:
            log.warning("Redis at %s answers again", where)
        else:
            reason = failure.reason if isinstance(failure, Unreachable) else why(failure, self._url)
            log.warning("Redis at %s does not answer: %s", where, reason)

    def _live(self) -> None:
        while not self._closed.is_set():
            try:
                self.look()
            except Exception:
                log.exception("a look at Redis failed")
            self._closed.wait(self._pause_s)

    def _ask(self, queues: Sequence[str], nodes: Sequence[Node]) -> list[Any]:
        own = [keys.own_queue(each.name) for each in nodes]
        lists = [keys.queue_list(name, step) for name in (*queues, *own) for step in keys.PRIORITY_STEPS]
        names = [UNACKED, keys.HELD, keys.DELAYED, keys.DEAD, keys.PAUSED, *lists]
        found: list[Any] = self._script(keys=names, args=[TOLD_APART])
        return found

    def _enter(self, found: list[Any], queues: Sequence[str], nodes: Sequence[Node]) -> dict[str, int]:
        now, unacked, delayed, first_due, dead, paused, held = found[:7]
        gauges, server_now = self._gauges, float(now)
        names = [*queues, *([OWN] * len(nodes))]
        lengths: dict[str, dict[int, int]] = {name: dict.fromkeys(keys.PRIORITY_STEPS, 0) for name in names}
        ages: dict[str, float] = dict.fromkeys(names, 0.0)
        places = ((name, step) for name in names for step in keys.PRIORITY_STEPS)
        for number, (name, step) in enumerate(places):
            length, submitted, tag = found[7 + 3 * number : 10 + 3 * number]
            lengths[name][step] += int(length)
            place = f"{number}:{name}"
            ages[name] = max(
                ages[name], self._age_s(place, bytes(submitted), bytes(tag).decode("utf-8", "replace"), server_now)
            )
        waiting = {name: sum(steps.values()) for name, steps in lengths.items()}
        gauges.length.keep({(name,): count for name, count in waiting.items()})
        gauges.by_priority.keep(
            {(name, str(step)): count for name, steps in lengths.items() for step, count in steps.items()}
        )
        gauges.age.keep({(name,): round(age, 3) for name, age in ages.items()})
        gauges.unacked.of().set(int(unacked))
        # Too many to be told apart: no figure is better than 0.
        by_queue = {} if held is None else _by_queue(held, waiting)
        gauges.unacked_of.keep({(name,): count for name, count in by_queue.items()})
        gauges.delayed.of().set(int(delayed))
        gauges.overdue.of().set(max(0.0, server_now - float(first_due)) if first_due else 0.0)
        gauges.dead.of().set(int(dead))
        gauges.paused.keep({(each.decode("utf-8", "replace"),): 1 for each in paused})
        gauges.enter_nodes([name for name in queues if name in self._ours], nodes)
        return waiting

    def _age_s(self, place: str, submitted: bytes, tag: str, now: float) -> float:
        if not tag and not submitted:
            self._first_seen.pop(place, None)
            return 0.0
        if submitted:
            return max(0.0, now - float(submitted))
        known, since = self._first_seen.get(place, ("", 0.0))
        if known != tag:
            since = self._clock.monotonic()
            self._first_seen[place] = (tag, since)
        return self._clock.monotonic() - since


class _Gauges:
    """The families of what a look finds."""

    def __init__(self, book: Book) -> None:
        own = "queue_name"
        self.length = book.gauge("celery_queue_length", "Messages that wait in a queue, of all priorities.", own)
        self.by_priority = book.gauge(
            "celery_queue_length_by_priority", "The same by priority step; 0 is fetched first.", own, "priority"
        )
        self.age = book.gauge(
            "celery_queue_oldest_task_age_seconds", "Since the message that is fetched next was submitted.", own
        )
        self.unacked = book.gauge("celery_unacked_messages", "Messages that workers hold, of all queues.")
        self.unacked_of = book.gauge("celery_queue_unacked", "Messages of a queue that Gaia's workers hold.", own)
        self.workers = book.gauge("celery_active_worker_count", "Workers that serve a queue.", own)
        self.consumers = book.gauge("celery_active_consumer_count", "The same.", own)
        self.processes = book.gauge("celery_active_process_count", "Calls that they may run at once.", own)
        self.concurrency = book.gauge("celery_worker_concurrency", "Calls at once of a worker.", "hostname", "worker")
        self.delayed = book.gauge("gaia_delayed_calls", "Calls that wait for their time.")
        self.overdue = book.gauge("gaia_delayed_overdue_seconds", "Since the first of these should have been queued.")
        self.dead = book.gauge("gaia_dead_letters_kept", "Dead letters.")
        self.paused = book.gauge("gaia_paused", "1 for each queue and operation that is paused.", "name")
        self.redis_up = book.gauge("gaia_redis_up", "1 if Redis answered the last look, else 0.")
        self.memory = book.gauge("gaia_redis_memory_bytes", "Memory that Redis uses.")
        self.memory_limit = book.gauge("gaia_redis_memory_limit_bytes", "What it may use; 0 is no limit.")
        self.clients = book.gauge("gaia_redis_clients", "Connections to Redis.")
        self.sample_seconds = book.gauge("gaia_monitor_sample_seconds", "How long the last look at Redis took.")

    def enter_redis(self, memory: dict[str, Any], clients: dict[str, Any]) -> None:
        """Enter what INFO says."""
        self.redis_up.of().set(1)
        self.memory.of().set(float(memory.get("used_memory", 0)))
        self.memory_limit.of().set(float(memory.get("maxmemory", 0)))
        self.clients.of().set(float(clients.get("connected_clients", 0)))

    def enter_nodes(self, queues: Sequence[str], nodes: Sequence[Node]) -> None:
        """Enter who serves what."""
        workers = {name: [each for each in nodes if name in each.queues] for name in queues}
        counts: dict[tuple[str, ...], float] = {(name,): len(found) for name, found in workers.items()}
        self.workers.keep(counts)
        self.consumers.keep(counts)
        self.processes.keep({(name,): sum(each.concurrency for each in found) for name, found in workers.items()})
        self.concurrency.keep({(host_of(each.name), each.name): each.concurrency for each in nodes})


def _by_queue(held: Sequence[Any], known: dict[str, int]) -> dict[str, int]:
    """Add up what is held by list, under the queues that are known; own queues are one."""
    found = dict.fromkeys(known, 0)
    for name, count in zip(held[::2], held[1::2], strict=True):
        queue = bytes(name).decode("utf-8", "replace").partition("\x06")[0]
        queue = OWN if queue.startswith(f"{OWN}.") else queue
        if queue in found or queue == OWN:
            found[queue] = found.get(queue, 0) + int(count)
    return found

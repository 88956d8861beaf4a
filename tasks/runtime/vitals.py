"""Whether this worker lives, and whether it consumes: what its own process can see without asking anybody.

Alive is a worker whose loop turns, or that connects anew: an outage of Redis is no reason to kill it. Ready is one that
fetches: started, not ending, consuming a queue, and answered by the server of late. A worker whose consumer is dead may
go on answering `celery inspect ping`, since that comes over another connection of the same loop.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from celery.worker import state
from kombu.asynchronous import get_event_loop

from gaia.store import keys
from tasks import metrics
from tasks.broker.channel import Fetching
from tasks.runtime import identity
from tasks.runtime.lag import Lag, timer_of
from tasks.runtime.pool import Pool
from tasks.scope import Clock

LOOP_BOUND_S: Final = 15.0
"""A loop that has nothing to do turns at least every ten seconds, mostly every second."""

FETCH_BOUND_S: Final = 6.0
"""With a free slot, the server is asked every second, and has five to answer (`tasks.broker.channel`)."""


class Vitals:
    """What one worker process knows of its own life. Written by its loop, read by any thread."""

    def __init__(self, clock: Clock | None = None, *, hindered: Callable[[], list[str]] = list) -> None:
        """Know nothing yet. `hindered` gives what else keeps calls from their end."""
        self._hindered = hindered
        self._monotonic = (clock or Clock()).monotonic
        self._worker: Any = None
        self._started = threading.Event()
        self._ending = threading.Event()
        self._turned_at = self._monotonic()
        metrics.READY.watch(self._is_ready)
        metrics.LOOP_AGE.watch(self.loop_age_s)
        metrics.FETCH_AGE.watch(self.fetch_age_s)

    def attach(self, worker: Any) -> None:
        """Take Celery's worker, before it starts."""
        self._worker = worker

    def started(self) -> None:
        """Say that the consumer has started; for the loop's thread. Its loop outlives every connection."""
        self._turned_at = self._monotonic()
        self._started.set()
        loop = get_event_loop()
        if loop is not None:
            loop.on_tick.add(self._turn)
            lag = timer_of("worker")
            if lag is not None:
                loop.on_tick.add(partial(_listen, loop, lag))

    def ending(self) -> None:
        """Say that the worker begins to end."""
        self._ending.set()

    def loop_age_s(self) -> float:
        """Give the seconds since the loop last turned; while the worker connects, nobody turns it."""
        if self._connects():
            self._turned_at = self._monotonic()
        return self._monotonic() - self._turned_at

    def fetch_age_s(self) -> float:
        """Give the seconds since the server last answered; 0 where that cannot be told."""
        channel = self._channel()
        return self._monotonic() - channel.answered_at if isinstance(channel, Fetching) else 0.0

    def queues(self) -> list[str]:
        """Give the shared queues that are consumed now."""
        channel = self._channel()
        own = keys.own_queue(identity.own().node)
        names = [] if channel is None else list(channel.active_queues)
        # A queue is there once a consumer; those of remote control are no queues of calls.
        return [each for each in dict.fromkeys(names) if each != own and not each.endswith(".pidbox")]

    def dead(self) -> list[str]:
        """Give why the worker should be killed; nothing if it lives."""
        if not self._started.is_set() or self._ending.is_set() or self._connects() or self._is_blocked_by_a_call():
            return []  # starting and ending have bounds of their own
        age_s = self.loop_age_s()
        return [f"the loop has not turned for {age_s:.0f} s"] if age_s > LOOP_BOUND_S else []

    def unready(self) -> list[str]:
        """Give why the worker does not consume; nothing if it does."""
        if self._ending.is_set():
            return ["the worker ends"]
        if not self._started.is_set():
            return ["the worker has not started yet"]
        if self._connects():
            return ["Redis is away: the worker connects anew"]
        return self.dead() or self._fetches_not() or self._hindered()

    def _fetches_not(self) -> list[str]:
        channel = self._channel()
        if channel is None or not self.queues():
            return ["no queue is consumed"]
        if not isinstance(channel, Fetching):
            return []
        age_s = self.fetch_age_s()
        # With every slot taken nothing is asked for.
        if age_s > FETCH_BOUND_S and channel.holder.room() > 0 and channel.qos.can_consume():
            return [f"nothing was fetched or waited for for {age_s:.0f} s"]
        return []

    def _is_ready(self) -> float:
        return float(not self.unready())

    def _turn(self) -> None:
        self._turned_at = self._monotonic()

    def _connects(self) -> bool:
        consumer = getattr(self._worker, "consumer", None)
        return consumer is None or consumer.connection is None or consumer.task_consumer is None

    def _is_blocked_by_a_call(self) -> bool:
        """Say whether a call keeps the loop from turning, as in Celery's `solo` pool it does."""
        consumer = getattr(self._worker, "consumer", None)
        return not isinstance(getattr(consumer, "pool", None), Pool) and bool(state.active_requests)

    def _channel(self) -> Any:
        consumer = getattr(self._worker, "consumer", None)
        task_consumer = getattr(consumer, "task_consumer", None)
        return getattr(task_consumer, "channel", None)


def _listen(loop: Any, lag: Lag) -> None:
    """Have the loop run a timer; one that connected anew has forgotten its readers."""
    if lag.descriptor not in loop.readers:
        with suppress(OSError):  # of epoll; the next turn tries again
            loop.add_reader(lag.descriptor, lag.tell)

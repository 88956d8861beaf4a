"""The threads that run calls: one queue in memory, no future a call.

Celery's own pool of threads makes a future, a lock and a work item for every call. Here a call is one entry of a
`SimpleQueue`, so that whoever is at it takes the next one without another turn of the scheduler.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from celery.concurrency.base import BasePool, apply_target

log = logging.getLogger(__name__)


class GivenBackError(Exception):
    """The message was given back before its run began."""


class Pool(BasePool):
    """A fixed number of threads. Its time limits are the calls' deadlines; it knows none of Celery's.

    The threads start with the pool, in the process that works: whoever forks does it before. They are daemons, so that
    a call that never ends keeps no process alive, see `tasks.runtime.stopping`.
    """

    body_can_be_buffer = True
    signal_safe = False  # `stop` waits for what runs
    limit: int

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take Celery's options; nothing is started."""
        super().__init__(*arguments, **options)
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.put: Callable[[Callable[[], object]], None] = self._calls.put
        """Run something as soon as a thread is free. What it raises is logged."""

    def on_start(self) -> None:
        """Start the threads."""
        for number in range(self.limit):
            thread = threading.Thread(target=self._work, name=f"gaia-call-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> None:
        """Run one of Celery's calls; its outcome goes to the callbacks."""
        self.put(partial(apply_target, target, args, kwargs, callback, accept_callback))

    def on_stop(self) -> None:
        """Drop what has not begun, whose messages go back to the queue, and wait for what runs, without bound."""
        self.on_terminate()
        for each in self._threads:
            each.join()
        self._threads.clear()

    def on_terminate(self) -> None:
        """Drop what has not begun, and wait for nothing."""
        while True:
            try:
                self._calls.get_nowait()
            except Empty:
                break
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        get = self._calls.get
        while (call := get()) is not None:
            try:
                call()
            except GivenBackError:
                log.debug("a call was given back before it began")
            except BaseException:  # a thread of fewer would go unnoticed
                log.exception("a call could not be brought to its end")
            del call  # or it would live until the next one comes

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "max-concurrency": self.limit, "threads": len(self._threads)}

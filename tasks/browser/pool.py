"""The warm browser of a worker process: lent to so many captures at once, replaced when it is worn or dead.

A `Pool` owns every Chromium it started. When the worker dies, each sees its pipe close and ends itself.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final

from gaia.errors import BrowserUnavailable, GaiaError, PoolExhausted, TimedOut
from tasks.browser.bound import Bound
from tasks.browser.instance import Instance

CLOSE_S: Final = 30.0


class Pool:
    """Lends one instance to many. A worn one serves who has it while its successor takes the next."""

    def __init__(self, launch: Callable[[], Instance], *, size: int, recycle_after: int) -> None:
        """Start nothing yet; `launch` runs in a thread of its own, one at a time."""
        self._launch = launch
        self._size = size
        self._recycle_after = recycle_after
        self._changed = threading.Condition()
        self._current: Instance | None = None
        self._served = 0
        self._users: dict[Instance, int] = {}
        self._launching: Future[None] | None = None
        self._closed = False

    @contextmanager
    def lend(self, bound: Bound) -> Iterator[Instance]:
        """Lend an instance, started if there is none.

        Raises:
            PoolExhausted: if all places stayed taken for as long as the call may wait.
            BrowserUnavailable, NotConfigured: if no browser could be started.
        """
        with bound.scope.cancelled.calling(self._wake):
            instance = self._take(bound)
        try:
            yield instance
        finally:
            self._give_back(instance)

    def close(self) -> None:
        """End every instance, those in use too."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._launching is None, CLOSE_S)
            instances, self._users, self._current = [*self._users], {}, None
        for each in instances:
            each.close()

    # --- taking

    def _take(self, bound: Bound) -> Instance:
        waited_from = bound.scope.clock.monotonic()
        launching: Future[None] | None = None
        with self._changed:
            while True:
                if self._closed:
                    raise BrowserUnavailable("the worker is stopping")
                if launching is not None and launching.done() and (failure := launching.exception()):
                    raise type(failure)(*failure.args)
                if sum(self._users.values()) >= self._size:
                    launching = None
                elif (instance := self._fit()) is not None:
                    return instance
                else:
                    launching = self._launching or self._start()
                self._wait(bound, waited_from, full=launching is None)

    def _fit(self) -> Instance | None:
        instance = self._current
        if instance is None or instance.dead or self._served >= self._recycle_after:
            return None
        self._served += 1
        self._users[instance] += 1
        return instance

    def _wait(self, bound: Bound, waited_from: float, *, full: bool) -> None:
        try:
            self._changed.wait(bound.left_s())
        except TimedOut:
            if not full:
                raise
            waited_s = bound.scope.clock.monotonic() - waited_from
            raise PoolExhausted("browser pages", self._size, round(waited_s, 3)) from None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # --- starting

    def _start(self) -> Future[None]:
        future: Future[None] = Future()
        self._launching = future
        worn, self._current = self._current, None
        if worn is not None and self._users.get(worn) == 0:
            del self._users[worn]
        else:
            worn = None
        threading.Thread(target=self._run_launch, args=(future, worn), name="gaia-browser-start", daemon=True).start()
        return future

    def _run_launch(self, future: Future[None], worn: Instance | None) -> None:
        instance, failure = None, None
        try:
            if worn is not None:
                worn.close()
            instance = self._launch()
        except GaiaError as ours:
            failure = ours
        except Exception as foreign:  # noqa: BLE001 - whoever waits must be told, whatever it is
            failure = BrowserUnavailable(f"{type(foreign).__name__}: {foreign}")
        with self._changed:
            if instance is not None:
                self._current, self._served = instance, 0
                self._users[instance] = 0
            self._launching = None
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)
            self._changed.notify_all()

    # --- giving back

    def _give_back(self, instance: Instance) -> None:
        with self._changed:
            self._changed.notify_all()
            if instance not in self._users:
                return  # the pool was closed meanwhile
            self._users[instance] -= 1
            current = instance is self._current
            worn = instance.dead or not current or self._served >= self._recycle_after
            if not worn or self._users[instance]:
                return
            del self._users[instance]
            if current:
                self._current = None
        instance.close()

"""The one event loop of the browser subsystem, in one thread: calls of other threads run in it within their bounds."""

import asyncio
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import thread_time
from typing import Any, Final, Generic, TypeVar

from gaia.errors import BrowserUnavailable
from tasks import metrics
from tasks.runtime.lag import timer_of
from tasks.scope import Scope

T = TypeVar("T")

CLEAN_UP_S: Final = 15.0
"""For a call that was stopped to close its page."""
CLOSE_S: Final = 30.0


@dataclass(frozen=True)
class _End(Generic[T]):
    """How a call ended: with what it found, or in an error."""

    found: list[T] = field(default_factory=list)
    failure: BaseException | None = None


class Loop:
    """Starts its thread at the first call."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T], scope: Scope, timeout_s: float) -> T:
        """Run to the end in the loop, cancelled when the call is, or when `timeout_s` has passed.

        Raises:
            TimeoutError: if the time passed and the work itself raised nothing else.
            Cancelled, DeadlineExceeded: of the call.
            BrowserUnavailable: if the loop is closed.
        """
        told: SimpleQueue[_End[T]] = SimpleQueue()
        started: list[asyncio.Task[None]] = []

        async def bounded() -> None:
            try:
                async with asyncio.timeout(timeout_s):
                    found = await _measured(work, metrics.meters(scope.operation).worked)
            except BaseException as failure:  # noqa: BLE001 - it goes to the caller's thread
                told.put(_End(failure=failure))
            else:
                told.put(_End([found]))

        loop = self._started(work)

        def start() -> None:
            started.append(loop.create_task(bounded()))
            started[0].add_done_callback(ended)

        def ended(task: "asyncio.Task[None]") -> None:
            if task.cancelled():  # before its first step
                work.close()
                told.put(_End(failure=asyncio.CancelledError()))

        loop.call_soon_threadsafe(start)

        def cancel() -> None:
            started[0].cancel()

        def stop() -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(cancel)

        with scope.cancelled.calling(stop):
            return _outcome(told, stop, scope, timeout_s + CLEAN_UP_S)

    def post(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run work of the subsystem itself."""
        loop = self._started(work)
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), loop).result(timeout_s + CLOSE_S)

    @property
    def started(self) -> bool:
        """Say whether there is a thread."""
        return self._loop is not None

    def close(self) -> None:
        """Cancel what runs, and end the thread."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        with suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(CLOSE_S)

    def _started(self, work: Coroutine[Any, Any, Any]) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                work.close()
                raise BrowserUnavailable("the worker is stopping")
            if self._loop is None:
                try:
                    self._loop, self._thread = _begun()
                except (OSError, RuntimeError) as failure:  # no descriptor, no thread: the next call tries again
                    work.close()
                    raise BrowserUnavailable(f"its loop cannot start: {failure}") from None
            return self._loop


@types.coroutine
def _measured(work: Coroutine[Any, Any, T], tell: Callable[[float], None]) -> Generator[Any, Any, T]:
    """Run a coroutine to its end, and tell the CPU time of its steps; that of tasks it starts is not its own."""
    cpu_s, given, thrown = 0.0, None, None
    try:
        while True:
            began = thread_time()
            try:
                wish = work.send(given) if thrown is None else work.throw(thrown)
            except StopIteration as end:
                found: T = end.value
                return found
            finally:
                cpu_s += thread_time() - began
            given = thrown = None
            try:
                given = yield wish
            except GeneratorExit:
                work.close()
                raise
            except BaseException as failure:  # noqa: BLE001 - it is the work's to handle
                thrown = failure
    finally:
        given = thrown = None  # an error's traceback holds this frame, which must not hold the error
        tell(cpu_s)


def _outcome(told: "SimpleQueue[_End[T]]", stop: Callable[[], None], scope: Scope, timeout_s: float) -> T:
    """Wait for the end of a call. Its error is nowhere kept but where it is raised: its traceback holds this frame."""
    try:
        end = told.get(timeout=timeout_s)
    except Empty:
        stop()
        raise TimeoutError from None
    if end.failure is None:
        return end.found[0]
    try:
        if isinstance(end.failure, asyncio.CancelledError):
            scope.check()
            raise BrowserUnavailable("the worker is stopping") from None
        raise end.failure
    finally:
        del end


def _begun() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_main, args=(loop,), name="gaia-browser-loop", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        loop.close()
        raise
    return loop, thread


def _main(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    lag = timer_of("browser")
    try:
        if lag is not None:
            loop.call_soon(loop.add_reader, lag.descriptor, lag.tell)
        loop.run_forever()
    finally:
        if lag is not None:
            loop.remove_reader(lag.descriptor)
            lag.close()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.run_until_complete(asyncio.sleep(0))  # transports close a step later
        loop.close()


async def _cancel_all() -> None:
    others = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
    for each in others:
        each.cancel()
    await asyncio.wait(others, timeout=CLOSE_S / 2) if others else None

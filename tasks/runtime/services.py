"""The services of this process: each built once, told of the worker's end, closed at it."""

import functools
import logging
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeVar

from tasks.limits import cluster

T = TypeVar("T")

_closers: list[Callable[[], None]] = []
_drainers: list[Callable[[], None]] = []
_closing: Final = threading.Lock()

log = logging.getLogger(__name__)


def once(build: Callable[[], T]) -> Callable[[], T]:
    """Build a service at its first use, in one thread, and close it when the worker ends.

    `functools.cache` alone would let two threads build at once.
    """
    lock = threading.Lock()
    built: list[T] = []

    @functools.wraps(build)
    def get() -> T:
        with lock:
            if not built:
                built.append(build())
                close = getattr(built[0], "close", None)
                if close is not None:
                    _closers.append(close)
                drain = getattr(built[0], "drain", None)
                if drain is not None:
                    _drainers.append(drain)
            return built[0]

    return get


def assembled(module: str) -> Callable[[], Any]:
    """Build a service at its first use, as `once`, by the `build` of a module that is imported only then.

    A worker of other queues never imports it, nor what it needs.
    """
    return once(lambda: import_module(module).build())


def drain_services() -> None:
    """Tell every service that has a `drain` that the worker will end, while its node still lives; in bounded time."""
    for drain in tuple(_drainers):
        try:
            drain()
        except Exception:
            log.exception("a service could not prepare for the worker's end")


def close_services() -> None:
    """Close every service that was built, the last first, then the limits; one that fails keeps nothing else open.

    Two threads may ask at a worker's end: both return when all is closed.
    """
    with _closing:
        close: Callable[[], None] | None = None
        while close is not cluster.close:
            close = _closers.pop() if _closers else cluster.close
            try:
                close()
            except Exception:
                log.exception("a service could not be closed")

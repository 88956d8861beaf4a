"""Logs of a worker: one line an event, with the operation and id of the call, without secrets."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from gaia.redaction import scrub

FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s %(call)s%(message)s"


@dataclass(frozen=True)
class CallContext:
    """The call that this thread works on."""

    operation: str
    id: str
    scrub: Callable[[str], str]


_current: ContextVar[CallContext | None] = ContextVar("gaia_call", default=None)


@contextmanager
def working_on(operation: str, call_id: str, scrubber: Callable[[str], str]) -> Iterator[None]:
    """Name the call in every line that this thread logs inside the block, and strike its secrets."""
    token = _current.set(CallContext(operation, call_id, scrubber))
    try:
        yield
    finally:
        _current.reset(token)


class Formatter(logging.Formatter):
    """Adds the call, and scrubs the finished text: message, traceback and stack alike."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        context = _current.get()
        record.call = f"{context.operation}[{context.id}] " if context else ""
        text = super().format(record)
        return context.scrub(text) if context else scrub(text)


def configure(level: str) -> None:
    """Send all logs of the process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # One line per received and per succeeded task is Celery's; at INFO the second is enough.
    logging.getLogger("celery.worker.strategy").setLevel(max(logging.getLevelName(level), logging.WARNING))

"""Logs of a worker: one line an event, with the operation and id of the call, without secrets."""

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Final

from gaia.redaction import scrub

FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s %(call)s%(message)s"


class working_on:  # noqa: N801 - a context manager; a generator would cost a call more than all it does
    """Name the call in every line that this thread logs inside the block, and strike its secrets."""

    __slots__ = ("_token", "id", "operation", "scrub")

    def __init__(self, operation: str, call_id: str, scrub: Callable[[str], str]) -> None:
        """Take the call's name and id, and what strikes its secrets from a text."""
        self.operation = operation
        self.id = call_id
        self.scrub = scrub

    def __enter__(self) -> None:
        """Begin."""
        self._token: Token[working_on | None] = _current.set(self)

    def __exit__(self, *_: object) -> None:
        """Give back what this thread worked on before."""
        _current.reset(self._token)


_current: ContextVar[working_on | None] = ContextVar("gaia_call", default=None)
"""The call that this thread works on."""


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

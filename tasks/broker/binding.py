"""The bindings of a worker's queues: it consumes without them, so a server that refuses to write them stops no worker.

A full server refuses every write that needs memory. Workers that come back to it are what frees that memory, by the
calls that they end; kombu ends them by the error.
"""

import logging
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoPermissionError, ResponseError

if TYPE_CHECKING:
    from kombu.transport.redis import Channel as Base
else:
    Base = object

log = logging.getLogger(__name__)


class Binding(Base):
    """What makes a kombu Redis channel write a refused binding later; mixed in. For the loop's thread."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Owe nothing yet."""
        self._unwritten: Final[set[tuple[str, ...]]] = set()
        self._is_refused = False
        super().__init__(*args, **options)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Write a binding. Of a producer it must be written: what it publishes is routed by it."""
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except NoPermissionError:
            raise
        except ResponseError:
            if getattr(self.connection.cycle, "_binding_expiry_tref", None) is None:
                raise  # no loop comes back to it
            log.info("the binding of queue %s was refused: it is written later", queue)
            self._unwritten.add((exchange, routing_key, pattern, queue))

    def maybe_refresh_binding_expiry(self) -> None:
        """Write what was refused; kombu's loop calls it every second."""
        try:
            for each in tuple(self._unwritten):
                super()._queue_bind(*each)
                self._unwritten.discard(each)
            super().maybe_refresh_binding_expiry()
        except ResponseError as failure:
            # kombu logs a traceback each time.
            if not self._is_refused:
                log.warning("the bindings of queues are refused, and tried again each second: %s", failure)
            self._is_refused = True
        else:
            self._is_refused = False

"""Celery's consumer, with an end for messages that no task takes: an error result, or the dead letters.

Celery logs such messages whole, secrets included, and some of them end its loop.
"""

import logging
from collections.abc import Callable
from typing import Any

import redis
from celery.exceptions import InvalidTaskError
from celery.worker import consumer as celery_consumer
from kombu.exceptions import ContentDisallowed, DecodeError

from gaia.errors import GaiaError, InvalidCall, UnknownOperation
from gaia.store import dead

log = logging.getLogger(__name__)


class Consumer(celery_consumer.Consumer):
    """The consumer of a Gaia worker."""

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Give Celery's handler, wrapped so that a misshapen message cannot end the loop."""
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Any) -> Any:
            try:
                return handle(message)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
                return self._refuse(message, f"it is misshapen ({type(failure).__name__})")

        return on_message

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Take a message that names no task."""
        del body
        self._refuse(message, "it names no operation")

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """Take a message that names an operation which no worker of this version has."""
        del body, exc
        name = str(message.headers.get("task"))
        self._refuse(message, f"no operation is called {name[:200]}", UnknownOperation(name[:200]))

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """Take a message whose body does not fit Celery's protocol."""
        del body
        name = str((message.headers or {}).get("task"))
        reason = str(exc) if isinstance(exc, InvalidTaskError) else "its content type is not accepted"
        self._refuse(message, reason, InvalidCall(name[:200], "body", reason))

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """Take a message whose body cannot be decoded."""
        kind = type(exc).__name__ if isinstance(exc, ContentDisallowed | DecodeError) else "DecodeError"
        name = str((message.headers or {}).get("task"))
        self._refuse(message, f"its body cannot be decoded ({kind})", InvalidCall(name[:200], "body", "is no JSON"))

    def _refuse(self, message: Any, reason: str, error: GaiaError | None = None) -> None:
        """Park the message, give its caller the error if it has one, and take it off the queue."""
        queue = str((message.delivery_info or {}).get("routing_key", "?"))
        call_id = (message.headers or {}).get("id")
        log.error("message %s on queue %s was put among the dead letters: %s", call_id, queue, reason)
        with message.channel.conn_or_acquire() as client:
            _park(client, queue, reason, message)
        if error is not None and isinstance(call_id, str):
            self.app.backend.store_result(call_id, error, "FAILURE")
        message.reject_log_error(log, self.connection_errors)


def _park(client: "redis.Redis", queue: str, reason: str, message: Any) -> None:
    body = message.body
    dead.park(client, queue=queue, reason=reason, message=body if isinstance(body, bytes) else str(body).encode())

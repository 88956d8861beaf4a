"""Celery's consumer, with an end for messages that no task takes: an error result, or the dead letters.

Celery logs such messages whole, secrets included, and some of them end its loop.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from celery.exceptions import InvalidTaskError
from celery.worker import consumer as celery_consumer
from celery.worker import state
from kombu.exceptions import ContentDisallowed, DecodeError
from redis.exceptions import NoPermissionError, ResponseError

from gaia.errors import GaiaError, InvalidCall, UnknownOperation
from tasks.broker.backend import Backend
from tasks.broker.channel import Fetching
from tasks.runtime.express import Express
from tasks.runtime.pool import Pool

EVENTS_EVERY_S: Final = 0.1
EVENTS_MOST: Final = 1000
"""Events in one message; more are sent at once."""

RELIEF_EVERY_S: Final = 1.0

REFUSED_PAUSE_S: Final = 1.0

RECONNECT_S: Final = 2.0
"""Between two tries to connect. Celery's come to lie half a minute apart: so long a worker idles after an outage."""

log = logging.getLogger(__name__)


class Consumer(celery_consumer.Consumer):
    """The consumer of a Gaia worker."""

    _flush_planned = False
    _relief: Any = None
    express: Express
    """The short way over the present connection; set if the pool and the transport are ours."""

    def on_send_event_buffered(self) -> None:
        """Plan to send the events that have gathered; Celery would send them in every turn of the loop.

        Called by the pool's threads, too, so the loop itself sets the timer.
        """
        if self.hub and not self._flush_planned:
            self._flush_planned = True
            self.hub.call_soon(self.hub.call_later, EVENTS_EVERY_S, self._flush_gathered)

    def _flush_gathered(self) -> None:
        self._flush_planned = False
        if self.event_dispatcher is not None:
            self.event_dispatcher.buffer_limit = EVENTS_MOST
            self._flush_events()

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Acknowledge in the thread that asks: Celery's way needs the loop, which is over while calls drain."""
        return p(*args, **kwargs)

    def close(self) -> None:
        """Stop fetching: what was not started yet goes back, what ends from now on is committed without the loop."""
        if self.task_consumer is not None:
            channel = self.task_consumer.channel
            channel.holder.leave()
            channel.settle()
            channel.holder.give_back_waiting()
        super().close()

    def shutdown(self) -> None:
        """Send the last events, then end."""
        try:
            self._flush_gathered()
        except self.connection_errors:
            log.warning("the last events could not be sent")
        super().shutdown()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, and try again for as long as it takes."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_step=0, interval_max=RECONNECT_S)
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Wait before the next try if the server refused something; nothing changes by it what a user may do."""
        if isinstance(exc, NoPermissionError):
            raise exc
        super().on_connection_error_after_connected(exc)
        if isinstance(exc, ResponseError):
            log.warning("the broker refused (%s): once more in %g s", exc, REFUSED_PAUSE_S)
            time.sleep(REFUSED_PAUSE_S)

    def on_close(self) -> None:
        """Give back what Celery forgets with a connection: what waits for a rate limit, or for its time."""
        waiting = [request for bucket in self.task_buckets.values() if bucket for request, _ in bucket.contents]
        waiting += [each for each in state.scheduled_requests if each not in state.reserved_requests]
        super().on_close()
        for each in waiting:
            each.message.channel.holder.give_back([each.message.delivery_tag], "next")

    def cancel_active_requests(self) -> None:
        """Cancel what runs where the pool can; what runs in threads is stopped by the drain.

        Celery's error would end the wait for those threads, and what they go on with would be given back.
        """
        with suppress(NotImplementedError):
            super().cancel_active_requests()

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Give Celery's handler, wrapped so that a misshapen message cannot end the loop."""
        handle = super().create_task_handler(*args, **options)
        channel = self.task_consumer.channel
        if self.hub and isinstance(self.pool, Pool) and isinstance(channel, Fetching):
            self.express = Express(self, self.pool, channel)
            channel.taker = self.express.take
            if self._relief is not None:
                self._relief.cancel()
            self._relief = self.hub.call_repeatedly(RELIEF_EVERY_S, self.express.relieve)

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
        """Make the message a dead letter, give its caller the error if there is one, and take it off the queue."""
        call_id = (message.headers or {}).get("id")
        log.error("message %s was put among the dead letters: %s", call_id, reason)
        answers = isinstance(call_id, str) and error is not None
        held = message.channel.holder
        travels = isinstance(self.app.backend, Backend) and held.holds(message.delivery_tag)
        if answers and travels:
            self._answer(call_id, error, SimpleNamespace(properties=message.properties))
        if not held.bury(message.delivery_tag, reason, str(error or "")):
            log.warning("message %s is not held any more", call_id)
        message.reject_log_error(log, self.connection_errors)
        if answers and not travels:
            # If its store is away, the loop must not wait for it.
            self.pool.apply_async(self._answer, (call_id, error))

    def _answer(self, call_id: Any, error: GaiaError | None, request: object = None) -> None:
        """Store the error; it travels with the message's commit if `request` names the message."""
        try:
            self.app.backend.store_result(call_id, error, "FAILURE", request=request)
        except Exception:
            log.exception("the error for call %s could not be stored", call_id)

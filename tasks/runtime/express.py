"""The short way of a plain message: from the transport straight to a thread, and its end straight to the next turn.

    fetched -> taken -> reserved -> running -> its result and its end wait for the next turn
                  |                    |-> anything but a result: by the book
                  |-> not plain: Celery's way, from the start

Celery's way builds a message, a request, two promises, a context and a future for every call, most of which nobody
reads. Here an `ExpressRequest` stands for all of them: it knows the message as it was fetched, and reads the rest when
somebody asks, be it `inspect`, an event, a log line or an error. It is entered where Celery enters its own, so that
`inspect`, `revoke` and Flower see no difference.

Plain is a message of one of our operations with nothing to it that Celery has a rule for: no chain, no chord, no eta,
no expiry, no stamp, no rate limit, and nobody connected to Celery's signals. A call that ends in anything but a result
(`Retry`, `Reject`, an error) is handed to Celery's tracer with what it ended in, so that there is one way to fail.
"""

import logging
import os
import time
from binascii import a2b_base64
from functools import partial
from typing import Any, Final

from celery import signals
from celery.app import trace
from celery.utils.saferepr import saferepr
from celery.worker import state, strategy
from kombu.utils.encoding import safe_repr, safe_str

from gaia.errors import InternalError
from tasks.broker import jsontext
from tasks.broker.backend import Backend
from tasks.broker.channel import Fetching
from tasks.runtime.pool import Pool
from tasks.runtime.request import RedactedRequest, shown, waited

ENDED: Final = "gaia_ended"
"""In a request that Celery's tracer is given: what the run has ended in already, a reply or an exception."""

AHEAD_S: Final = 1.0
"""So long may a call that was fetched ahead wait for a slot here, while another worker may have one free."""

log = logging.getLogger(__name__)

_RULED: Final = ("eta", "expires", "group", "shadow", "stamped_headers", "compression")
"""Headers that Celery has rules for; null in a plain message."""

_BEFORE: Final = "[[], "
_AFTER: Final = ', {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
"""What stands around the fields in a body without positional arguments, callbacks and chords, as Celery writes it."""

_TYPED: Final = "__type__"
"""kombu's mark of a value that is no plain JSON."""


class Express:
    """Takes the plain messages of one consumer and channel."""

    def __init__(self, consumer: Any, pool: Pool, channel: Fetching) -> None:
        """Look up once what every call needs."""
        self.consumer = consumer
        self.channel = channel
        self.app = consumer.app
        self.backend = self.app.backend if isinstance(self.app.backend, Backend) else None
        self.logs_success = trace.logger.isEnabledFor(logging.INFO)
        self.pid = os.getpid()
        self._put = pool.put
        self._tasks = {
            name: task for name, task in self.app.tasks.items() if hasattr(task, "perform") and task.acks_late
        }
        self._logs_received = strategy.logger.isEnabledFor(logging.INFO)

    def take(self, message: dict[str, Any]) -> bool:
        """Take a message that `flaw_of` found sound, if it is plain. For the loop's thread."""
        headers = message["headers"]
        task = self._tasks.get(headers.get("task"))
        try:
            read = _read(message) if task is not None and self._is_plain(message, headers) else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False  # Celery's way says what is wrong with it
        if read is None or _is_watched():
            return False
        request = ExpressRequest(self, task, message, *read)
        if self._logs_received:
            request.log_received(strategy.logger)
        if request.tells:
            request.tell_received()
        state.task_reserved(request)
        self.channel.holder.wait(request.tag, request.waits_since)
        self.channel.express[request.tag] = request
        self._put(request.run)
        return True

    def relieve(self) -> None:
        """Give back what has waited for a slot for too long, to be fetched next by whoever has one. As `take`.

        It was fetched ahead while calls were short; those that run now are not.
        """
        tags = self.channel.holder.give_back_waiting(time.monotonic() - AHEAD_S)
        for tag in tags:
            request = self.channel.express.pop(tag, None)
            if request is not None:
                request.forget()
        if tags:
            log.info("%d calls that waited for a slot go back: those that run are long", len(tags))

    def _is_plain(self, message: dict[str, Any], headers: dict[str, Any]) -> bool:
        for name in _RULED:
            if headers.get(name) is not None:
                return False
        call_id = headers["id"]
        limits = headers.get("timelimit")
        return (
            type(call_id) is str
            and type(headers.get("retries", 0)) is int
            and message["content-type"] == "application/json"
            and message["content-encoding"] == "utf-8"
            and (limits is None or limits == [None, None])
            and call_id not in state.revoked
            and self.consumer.task_buckets[headers["task"]] is None
            and not self.consumer.on_task_message
        )


def _read(message: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
    """Give the fields of a body that holds nothing else, and its bytes; None if there is more to it."""
    body = message["body"]
    encoding = message["properties"].get("body_encoding")
    text = a2b_base64(body).decode() if encoding == "base64" else body
    if not (text.startswith(_BEFORE) and text.endswith(_AFTER)) or _TYPED in text:
        return None
    given = text[len(_BEFORE) : -len(_AFTER)]
    size_bytes = len(text) if text.isascii() else len(text.encode())
    if given == "{}":
        return {}, size_bytes
    fields = jsontext.loads(given)
    return (fields, size_bytes) if type(fields) is dict else None


def _is_watched() -> bool:
    """Say whether somebody is connected to one of Celery's signals about tasks: they are to see everything."""
    return bool(
        signals.task_received.receivers
        or signals.task_prerun.receivers
        or signals.task_postrun.receivers
        or signals.task_success.receivers
        or signals.task_failure.receivers
        or signals.task_retry.receivers
        or signals.task_revoked.receivers
        or signals.task_rejected.receivers
    )


class ExpressRequest(RedactedRequest):
    """A request that is read when somebody asks; it runs itself, see `tasks.runtime.express`.

    Whatever it does not have yet, Celery's own constructor reads from the message at the first question.
    """

    acknowledged: bool = False

    def __init__(
        self, express: Express, task: Any, raw: dict[str, Any], fields: dict[str, Any], size_bytes: int
    ) -> None:
        """Take a plain message, whose body has so many bytes."""
        self._express = express
        self._task = task
        self._raw = raw
        self._fields = fields
        self._size_bytes = size_bytes
        self._headers = headers = raw["headers"]
        self._properties = properties = raw["properties"]
        self.id: str = headers["id"]
        self._type = self.name = headers["task"]
        self.tag: str = properties["delivery_tag"]
        self.waits_since = time.monotonic()
        self._shown_as: str | None = None
        self._is_read = False

    def __getattr__(self, name: str) -> Any:
        """Read the message the way Celery does. Two threads that ask at once read the same."""
        if self._is_read or name.startswith("__"):
            raise AttributeError(name)
        express = self._express
        message = express.channel.Message(self._raw, channel=express.channel)
        super().__init__(
            message,
            # Not methods of this request: it would hold itself until the garbage collector comes.
            on_ack=partial(_end, express, self.tag),
            on_reject=partial(_turn_down, express, self.tag),
            app=express.app,
            hostname=express.consumer.hostname,
            eventer=express.consumer.event_dispatcher,
            task=self._task,
            connection_errors=express.consumer.connection_errors,
            utc=express.app.uses_utc_timezone(),
        )
        self._is_read = True
        return getattr(self, name)

    def _await_slot(self, tag: str) -> None:
        """Say nothing: whoever reads the message does so at any time, and it was said when it was taken."""

    # --- in the loop's thread

    def log_received(self, logger: logging.Logger) -> None:
        """Write Celery's line."""
        context = {"id": self.id, "name": self.name, "args": "()", "kwargs": self._shown(), "eta": None}
        logger.info(trace.LOG_RECEIVED, context, extra={"data": context})

    def tell_received(self) -> None:
        """Send Celery's event."""
        headers = self._headers
        self._tell(
            "task-received",
            name=self.name,
            args="()",
            kwargs=self._shown(),
            root_id=headers.get("root_id"),
            parent_id=headers.get("parent_id"),
            retries=headers.get("retries", 0),
            eta=None,
            expires=None,
        )

    # --- in a thread of the pool

    def run(self) -> None:
        """Run the call and bring it to its end."""
        if not self._express.channel.holder.start(self.tag, self.waits_since):
            self.forget()  # it was given back meanwhile
            return
        if self.id in state.revoked and self.revoked():
            return
        started = time.monotonic()
        self.worker_pid = self._express.pid
        self.time_start = time.time()
        state.active_requests.add(self)
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        if self.tells:
            self._tell("task-started", **waited(self._headers, self._properties, self.time_start))
        try:
            reply = self._task.perform(self._headers, self._properties, self._fields, self._size_bytes)
            if not self._ignores_result():
                self._store(reply)
        except Exception as ended:  # noqa: BLE001 - the tracer raises it again
            self._by_the_book(ended)
        except BaseException as ended:  # noqa: BLE001 - it would end this thread, and the call's caller would wait
            log.error("a call ended in %s", type(ended).__name__)  # noqa: TRY400 - the traceback may hold secrets
            self._by_the_book(InternalError(self.name, type(ended).__name__, ""))
        else:
            self._succeeded(reply, time.monotonic() - started)

    def _ignores_result(self) -> bool:
        ignored = self._headers.get("ignore_result")
        return bool(self._task.ignore_result if ignored is None else ignored)

    def _store(self, reply: Any) -> None:
        backend = self._express.backend
        if backend is None or not backend.succeed(self.tag, self._headers, reply.text):
            self._task.backend.mark_as_done(self.id, reply, self._context, store_result=True)

    def forget(self) -> None:
        """Take the request off Celery's tables."""
        if state.requests.get(self.id) is self:  # it may have come here again meanwhile
            state.requests.pop(self.id, None)
        state.active_requests.discard(self)
        state.reserved_requests.discard(self)

    def _succeeded(self, reply: Any, runtime: float) -> None:
        self.forget()
        self.acknowledge()
        logs, tells = self._express.logs_success, self.tells
        if not logs and not tells:
            return
        text, longest = repr(reply), self._task.resultrepr_maxsize
        text = text if len(text) < longest else saferepr(reply, longest)
        if logs:
            context = {"id": self.id, "name": self.name, "return_value": text, "runtime": runtime}
            trace.info(trace.LOG_SUCCESS, {**context, "args": "()", "kwargs": self._shown()})
        if tells:
            self._tell("task-succeeded", result=text, runtime=runtime)

    def _by_the_book(self, ended: object) -> None:
        """Have Celery's tracer do what follows from an end: store, log, call hooks, tell."""
        tracer = trace.fast_trace_task if self._express.app.use_fast_trace_task else trace.trace_task_ret
        request = {**self.request_dict, ENDED: ended}
        self.on_success(
            tracer(self.type, self.id, request, self.body, self.content_type, self.content_encoding),
        )

    def on_retry(self, exc_info: Any) -> None:
        """Tell first: by the time that the message has ended, its next run may have begun."""
        told = {"exception": safe_repr(exc_info.exception.exc), "traceback": safe_str(exc_info.traceback)}
        self.send_event("task-retried", **told)
        self.acknowledge()

    def acknowledge(self) -> None:
        """Let the message end with the next turn."""
        if not self.acknowledged:
            self.acknowledged = True
            _end(self._express, self.tag)

    # --- in either

    @property
    def tells(self) -> bool:
        """Say whether there are to be events."""
        eventer = self._express.consumer.event_dispatcher
        if eventer is None or not eventer.enabled or not self._task.send_events:
            return False
        # With events off, a worker still sends its heartbeat: to that end the sender is enabled, for that group alone.
        return not eventer.groups or "task" in eventer.groups

    def _tell(self, kind: str, **fields: Any) -> None:
        """Send an event. They are news: one that cannot be sent keeps no call from running."""
        try:
            self._express.consumer.event_dispatcher.send(kind, uuid=self.id, **fields)
        except Exception as failure:  # noqa: BLE001 - as above
            log.warning("an event could not be sent: %s", type(failure).__name__)

    def _shown(self) -> str:
        if self._shown_as is None:
            self._shown_as = shown(self._type, self._fields)
        return self._shown_as


def _end(express: Express, tag: str, *_: Any) -> None:
    """Let a message end with the next turn."""
    express.channel.express.pop(tag, None)
    express.channel.holder.end(tag)


def _turn_down(express: Express, tag: str, logger: Any, errors: Any, requeue: bool) -> None:  # noqa: FBT001 - Celery's call
    """End a message, or give it back."""
    del logger, errors
    if requeue:
        express.channel.express.pop(tag, None)
        express.channel.holder.give_back([tag], "last")
    else:
        _end(express, tag)

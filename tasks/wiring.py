"""Between Celery and the services: a task body is one line, everything around it stands here.

    @handles(api.Request)
    def request(call: api.Request, scope: Scope) -> api.Response:
        return service().request(call, scope)

Steps of a run: read the envelope, refuse what is too new, too late, cancelled or malformed, decode the call, run the
service within a `Scope`, encode the result. An error of ours is scrubbed of the call's secrets, retried if the
contract's policy allows, and otherwise stored; a foreign one is a defect, logged with its traceback and stored as
`InternalError`. Once the worker is past its grace, whatever ends in an error is handed back to the queue.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import thread_time
from typing import Any, Final, NoReturn, TypeVar, cast

from celery import Celery, Task
from celery.exceptions import CeleryError, Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate
from redis.exceptions import RedisError

from gaia import codec, redaction, wire
from gaia.contracts.base import Call
from gaia.errors import (
    Cancelled,
    DeadlineExceeded,
    Expired,
    GaiaError,
    HolderLost,
    InternalError,
    InvalidCall,
    InvalidResult,
    NewerPayload,
    WorkerLostTooOften,
)
from gaia.redaction import Scrubber
from gaia.store import history, idempotency, keys
from gaia.store.connection import reaching
from gaia.store.nodes import Nodes
from gaia.store.results import parse
from tasks import metrics
from tasks.broker.holders import holding
from tasks.delivery.running import Running
from tasks.meters import Meters
from tasks.runtime import identity
from tasks.runtime.express import ENDED
from tasks.runtime.logs import working_on
from tasks.runtime.progress import Reporter
from tasks.runtime.reply import Reply
from tasks.runtime.request import SIZE, first_wait_s
from tasks.runtime.weighing import Weighed
from tasks.scope import CancelToken, Clock, Elsewhere, Later, Scope

R = TypeVar("R")
C = TypeVar("C", bound=Call[Any])

NEWER_PAUSE_S: Final = 5.0
"""How long a message of a newer version waits before a worker looks at it again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handler:
    """An operation: its contract, and the function that performs it."""

    contract: type[Call[Any]]
    perform: Callable[[Any, Scope], Any]


HANDLERS: Final[dict[str, Handler]] = {}
"""Operation name to handler, filled as the subsystems' `tasks` modules are imported."""


def handles(contract: type[C]) -> Callable[[Callable[[C, Scope], Any]], Callable[[C, Scope], Any]]:
    """Make a function the handler of a contract's operation."""

    def enter(perform: Callable[[C, Scope], Any]) -> Callable[[C, Scope], Any]:
        if contract.OPERATION in HANDLERS:
            message = f"{contract.OPERATION} has a handler already"
            raise ValueError(message)
        HANDLERS[contract.OPERATION] = Handler(contract, perform)
        return perform

    return enter


@dataclass(frozen=True)
class Surroundings:
    """What a run needs of its worker."""

    artifacts: codec.Blobs
    keyed_artifacts: codec.Blobs
    running: Running
    nodes: Nodes
    broker: Any
    results: Any
    results_url: str
    deadline_s: float
    delivery_cap: int
    clock: Clock = field(default_factory=Clock)


def install(app: Celery, surroundings: Surroundings) -> None:
    """Register every handler as a task of the app."""
    for name, handler in HANDLERS.items():
        artifacts, keyed = (Weighed(each, name) for each in (surroundings.artifacts, surroundings.keyed_artifacts))
        around = replace(surroundings, artifacts=artifacts, keyed_artifacts=keyed)
        app.register_task(_operation(name, handler, around))


def _operation(name: str, handler: Handler, surroundings: Surroundings) -> "Task[Any, Any]":
    def run(self: "Task[Any, Any]", *args: object, **fields: object) -> Reply:
        told = vars(self.request)
        ended = told.get(ENDED)
        if isinstance(ended, BaseException):
            raise ended  # for Celery's tracer, as it has ended by express
        if ended is not None:
            return cast("Reply", ended)
        properties = told.get("properties") or {}
        run = Run(self, handler, surroundings, metrics.meters(name), fields, told, properties)
        return run.outcome(args, told.get(SIZE) or 0)

    def perform(
        self: "Task[Any, Any]",
        headers: Mapping[str, Any],
        properties: Mapping[str, Any],
        fields: Mapping[str, object],
        size_bytes: int,
    ) -> Reply:
        run = Run(self, handler, surroundings, metrics.meters(name), fields, headers, properties)
        return run.outcome((), size_bytes)

    # Celery makes one task object a class, so each operation is a class of its own.
    kind = type(
        name.replace(".", "_"),
        (Task,),
        {
            "name": name,
            "run": run,
            "perform": perform,
            "Request": "tasks.runtime.request:RedactedRequest",
            "typing": False,
            "throws": (GaiaError,),
            "resultrepr_maxsize": 160,
            "max_retries": None,
            "__doc__": handler.perform.__doc__,
            "__module__": __name__,
        },
    )
    task: Task[Any, Any] = kind()
    return task


class Run:
    """One run of one call."""

    def __init__(
        self,
        task: "Task[Any, Any]",
        handler: Handler,
        around: Surroundings,
        meters: Meters,
        fields: Mapping[str, object],
        told: Mapping[str, Any],
        properties: Mapping[str, Any],
    ) -> None:
        """Take the message: its fields, what its headers told, and its properties. Nothing is checked yet."""
        self.task = task
        self.handler = handler
        self.around = around
        self.meters = meters
        self.fields = fields
        self.told = told
        self.properties = properties
        self.operation = handler.contract.OPERATION
        self.id = str(told.get("id"))
        self.header: object = told.get(wire.HEADER)
        self.lost_leases = int(properties.get("gaia_lost", 0))
        self.call: Call[Any] | None = None
        self.scope: Scope | None = None
        self.sent_bytes = 0

    @property
    def tag(self) -> str:
        """The message's delivery tag."""
        return str(self.properties.get("delivery_tag", ""))

    def scrub(self, text: str) -> str:
        """Give a text without this call's secrets."""
        return self._scrubber(text)

    @functools.cached_property
    def _scrubber(self) -> Scrubber:
        # Made only when there is a text to strike secrets from.
        return Scrubber(redaction.secrets_of(self.handler.contract, self.fields))

    def outcome(self, args: tuple[object, ...], size_bytes: int) -> Reply:
        """Perform the call of a message of so many bytes; give its reply or raise what Celery is to make of it."""
        meters, monotonic = self.meters, self.around.clock.monotonic
        started, used = monotonic(), thread_time()
        ended = "error"
        meters.begin(size_bytes)
        try:
            with working_on(self.operation, self.id, self.scrub):
                reply = self._guarded(args)
            ended = "ok"
            self._settle_key()
        except GaiaError as error:
            metrics.ERRORS.labels(self.operation, type(error).__name__).inc()
            self._settle_key()
            raise
        except Reject:
            ended = "handed_back"
            raise
        except (Retry, Ignore):
            ended = "later"
            raise
        else:
            return reply
        finally:
            meters.end(ended, monotonic() - started, thread_time() - used, self.sent_bytes)

    def _guarded(self, args: tuple[object, ...]) -> Reply:
        """Perform the call; let no foreign error and no secret out."""
        properties, running = self.properties, self.around.running
        marked, fetched_at = bool(properties.get("gaia_cancelled")), properties.get("gaia_at")
        cancelled = running.enter(self.id, marked=marked, fetched_at=fetched_at)
        try:
            try:
                return self._perform(args, cancelled)
            except Later as wish:
                self._come_back(wish.after_s)
                failure: GaiaError = DeadlineExceeded(self.operation, 0.0)
            except Elsewhere as wish:
                self._lead_to(wish.node)
            except NewerPayload as error:
                if wire.times(self.header)[1] is not None:
                    self._come_back(NEWER_PAUSE_S)
                failure = error
                self._bury("newer_version", "no worker of the message's version came before its deadline", failure)
            except GaiaError as error:
                failure = error.scrubbed(self.scrub)
            except (CeleryError, WorkerShutdown, WorkerTerminate):
                raise
            except BaseException as error:
                log.exception("a service failed unexpectedly")
                failure = InternalError(self.operation, type(error).__name__, self.scrub(str(error)))
            self._hand_back_if_lost()
            self._hand_back_if_stopping()
            self._retry_if_allowed(failure)
            if self.told.get("ignore_result") and not isinstance(failure, Cancelled):
                self._bury("unread_failure", "it failed, and its result is stored for nobody", failure)
            raise failure from None
        finally:
            running.leave(self.id, cancelled)

    def _perform(self, args: tuple[object, ...], cancelled: CancelToken) -> Reply:
        if args:
            raise InvalidCall(self.operation, "args", "must be empty: fields travel by name")
        self.scope = scope = self._scope(self.header, cancelled)
        envelope = wire.Envelope.read(self.operation, self.header)
        self._hand_back_if_lost()
        self._refuse_what_expired()
        self._refuse_what_keeps_killing()
        self._skip_what_is_done(envelope)
        scope.check()
        with reaching(self.around.results_url):
            call = self.handler.contract.from_json(self.fields, self.around.artifacts)
        self.call = call
        self._go_to_holder(call)
        result = self.handler.perform(call, scope)
        if not isinstance(result, call.RESULT):
            raise TypeError(f"the service gave {type(result).__name__}, the contract says {call.RESULT.__name__}")
        with reaching(self.around.results_url):
            # What an idempotency key leads to is kept longer, and so are its bodies.
            keyed = envelope.key is not None
            try:
                reply = Reply(result, self.around.keyed_artifacts if keyed else self.around.artifacts)
            except codec.Mismatch as found:
                # A value of a foreign document: nested too deeply for JSON, or an integer too large.
                raise InvalidResult(self.operation, found.path, found.reason) from None
        if not self.told.get("ignore_result"):
            self.sent_bytes = len(reply.text)  # written here, within the run: what cannot be is an error of it
        return reply

    def _scope(self, given: object, cancelled: CancelToken) -> Scope:
        """Bound the run by the deadline of the envelope, read leniently: a newer one is refused later."""
        clock = self.around.clock
        now = clock.wall()
        _, deadline = wire.times(given)
        waited_s = first_wait_s(self.told, self.properties, now)
        if waited_s is not None:
            self.meters.waited(waited_s)
        deadline = now + self.around.deadline_s if deadline is None else deadline
        if deadline <= now:
            raise DeadlineExceeded(self.operation, round(now - deadline, 3))
        return Scope(
            id=self.id,
            operation=self.operation,
            ends_at=clock.monotonic() + (deadline - now),
            cancelled=cancelled,
            report=Reporter(self.around.results, self.id, clock),
            clock=clock,
            attempts=int(self.told.get("retries") or 0) + 1,
        )

    def _refuse_what_expired(self) -> None:
        """Drop a call that expired while it was held: Celery looks at that when it is fetched, not when it starts."""
        expires = self.told.get("expires")
        if isinstance(expires, str):
            moment = datetime.fromisoformat(expires)
            if (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() <= self.around.clock.wall():
                raise Expired(self.id)

    def _refuse_what_keeps_killing(self) -> None:
        """Make a dead letter of a call that lost its worker too often: it may be what kills them."""
        if self.lost_leases:
            self._remember(f"worker {self.lost_leases} was lost")
        if self.lost_leases >= self.around.delivery_cap:
            failure = WorkerLostTooOften(self.operation, self.lost_leases)
            self._bury("workers_lost", "its workers were lost", failure)
            raise failure

    def _skip_what_is_done(self, envelope: wire.Envelope) -> None:
        """Commit a call without another run if its outcome is stored under its idempotency key."""
        if envelope.key is None or not self.lost_leases:
            return
        with reaching(self.around.results_url):
            if parse(self.around.results.get(keys.result(self.id))) is not None:
                metrics.DUPLICATES.labels("done").inc()
                raise Ignore

    def _go_to_holder(self, call: Call[Any]) -> None:
        """Lead a call about something that lives on another worker there, and end this run."""
        holder = call.holder()
        if holder is None or identity.own().owns(holder):
            return
        # Of this name, too: a worker that was stopped for long may have a successor, whose calls it must not answer.
        if not self.around.nodes.lives(holder):
            raise HolderLost(holder.format())
        self._lead_to(holder.node)

    def _lead_to(self, node: str) -> NoReturn:
        """Put the message on a node's own queue, and end this run."""
        queue, held = keys.own_queue(node), holding(self.tag)
        if held is not None and held.move(self.tag, queue, self.around.clock.wall()):
            raise Ignore
        raise self._published_anew(countdown=0, queue=queue)

    def _hand_back_if_lost(self) -> None:
        """Give the message back, should it have come here again, if its lease was lost: this run counts for nothing."""
        held = holding(self.tag)
        if held is not None and held.was_told(self.tag):
            raise Reject("the lease was lost", requeue=True)

    def _hand_back_if_stopping(self) -> None:
        """Give the message back if the worker's end, not the caller, stopped the call."""
        if self.around.running.stopping and not self.around.running.was_cancelled(self.id):
            raise Reject("the worker is stopping", requeue=True)

    def _retry_if_allowed(self, failure: GaiaError) -> None:
        """Raise Celery's `Retry` if the contract's policy and the deadline leave room for another run."""
        call, scope = self.call, self.scope
        if call is None or scope is None or isinstance(failure, Cancelled | DeadlineExceeded):
            return
        policy = call.retries()
        if scope.attempts < policy.attempts and scope.retryable and call.may_retry(failure):
            pause_s = max(policy.pause_s(scope.attempts), getattr(failure, "retry_after_s", 0.0))
            metrics.RETRIES.labels(self.operation).inc()
            log.info("attempt %d failed, the next is in %.3f s: %s", scope.attempts, pause_s, failure)
            self._remember(f"attempt {scope.attempts} failed", str(failure))
            self._come_back(pause_s, retries=scope.attempts, because=failure)

    def _come_back(self, after_s: float, *, retries: int | None = None, because: GaiaError | None = None) -> None:
        """Let the call wait in Redis and end this run, unless its deadline comes first.

        Raises:
            Cancelled: if it was cancelled meanwhile: who did that found nothing that waits.
        """
        if self.around.running.was_cancelled(self.id):
            raise Cancelled(self.id) from None
        if self.scope is not None and after_s >= self.scope.remaining_s():
            return
        holder = holding(self.tag)
        due_at = self.around.clock.wall() + after_s
        if holder is not None and holder.postpone(self.tag, due_at, retries=retries, again=True):
            raise Retry(exc=because, when=after_s)
        raise self._published_anew(exc=because, countdown=after_s)

    def _published_anew(self, **options: Any) -> Exception:
        """Give what ends this run of a message that this process does not hold.

        Of another transport, or in a pool of processes, Celery publishes it anew. What went by express was given back
        meanwhile, so it is somebody else's.
        """
        by_express = self.task.request.called_directly
        ends: Exception = Ignore() if by_express else self.task.retry(**options, max_retries=None, throw=False)
        return ends

    def _remember(self, what: str, error: str = "") -> None:
        """Keep an event for the dead letter that this call may become."""
        at, _ = wire.times(self.header)
        left_s = 0.0 if self.scope is None else self.scope.remaining_s()
        with suppress(RedisError, OSError):
            event = history.Event(self.around.clock.wall(), what, error)
            history.record(self.around.broker, self.id, event, life=at, left_s=left_s)

    def _settle_key(self) -> None:
        """Let the call's idempotency key live as long as its result, which is stored next."""
        key = wire.key(self.header)
        if key is not None:
            with suppress(RedisError, OSError, UnicodeError):
                idempotency.settle(self.around.broker, key, self.id)

    def _bury(self, kind: str, reason: str, failure: GaiaError) -> None:
        holder = holding(self.tag)
        if holder is not None:
            holder.bury(self.tag, reason, str(failure), kind=kind)

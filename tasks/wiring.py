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
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from celery import Celery, Task
from celery.exceptions import CeleryError, Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate

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
    NewerPayload,
    WorkerLostTooOften,
)
from gaia.redaction import Scrubber
from gaia.store import keys
from gaia.store import progress as progress_store
from gaia.store.connection import reaching
from gaia.store.nodes import Nodes
from gaia.store.progress import Progress
from gaia.store.results import parse
from tasks import metrics
from tasks.broker.holder import holding
from tasks.delivery.running import Running
from tasks.runtime import identity
from tasks.runtime.logs import working_on
from tasks.scope import CancelToken, Clock, Later, Scope

R = TypeVar("R")
T = TypeVar("T")
C = TypeVar("C", bound=Call[Any])

PROGRESS_INTERVAL_S: Final = 0.1

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

_closers: list[Callable[[], None]] = []


def handles(contract: type[C]) -> Callable[[Callable[[C, Scope], Any]], Callable[[C, Scope], Any]]:
    """Make a function the handler of a contract's operation."""

    def enter(perform: Callable[[C, Scope], Any]) -> Callable[[C, Scope], Any]:
        if contract.OPERATION in HANDLERS:
            message = f"{contract.OPERATION} has a handler already"
            raise ValueError(message)
        HANDLERS[contract.OPERATION] = Handler(contract, perform)
        return perform

    return enter


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
            return built[0]

    return get


def close_services() -> None:
    """Close every service that was built, the last first; one that fails does not keep the rest open."""
    while _closers:
        close = _closers.pop()
        try:
            close()
        except Exception:
            log.exception("a service could not be closed")


@dataclass(frozen=True)
class Surroundings:
    """What a run needs of its worker."""

    artifacts: codec.Blobs
    keyed_artifacts: codec.Blobs
    running: Running
    nodes: Nodes
    results: Any
    results_url: str
    deadline_s: float
    delivery_cap: int
    clock: Clock = field(default_factory=Clock)


class Reply:
    """A result on its way to the store: Celery puts its repr into logs and events, so that is a redacted one."""

    def __init__(self, result: object, blobs: codec.Blobs) -> None:
        """Encode at once, so that a large body is stored, or fails to be, inside the run."""
        self._json = codec.encode(result, blobs)
        self._shown = redaction.show(result)

    def __json__(self) -> dict[str, Any]:
        """Give the JSON object; kombu's encoder asks for it."""
        return self._json

    def __repr__(self) -> str:
        return self._shown


def install(app: Celery, surroundings: Surroundings) -> None:
    """Register every handler as a task of the app."""
    for name, handler in HANDLERS.items():
        app.register_task(_operation(name, handler, surroundings))


def _operation(name: str, handler: Handler, surroundings: Surroundings) -> "Task[Any, Any]":
    def run(self: "Task[Any, Any]", *args: object, **fields: object) -> Reply:
        return Run(self, handler, surroundings, fields).outcome(args)

    # Celery makes one task object a class, so each operation is a class of its own.
    kind = type(
        name.replace(".", "_"),
        (Task,),
        {
            "name": name,
            "run": run,
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
        self, task: "Task[Any, Any]", handler: Handler, around: Surroundings, fields: Mapping[str, object]
    ) -> None:
        """Take what Celery hands over; nothing is checked yet."""
        self.task = task
        self.handler = handler
        self.around = around
        self.fields = fields
        self.operation = handler.contract.OPERATION
        self.id = str(task.request.id)
        properties = task.request.properties or {}
        self.tag = str(properties.get("delivery_tag", ""))
        self.lost_leases = int(properties.get("gaia_lost", 0))
        self.marked = bool(properties.get("gaia_cancelled"))
        self.fetched_at: float | None = properties.get("gaia_at")
        self.meters = metrics.meters(self.operation)
        self.call: Call[Any] | None = None
        self.scope: Scope | None = None

    @functools.cached_property
    def scrub(self) -> Scrubber:
        """Strikes this call's secrets; made only when there is a text to strike them from."""
        return Scrubber(redaction.secrets_of(self.handler.contract, self.fields))

    def struck(self, text: str) -> str:
        """Give a text without this call's secrets."""
        return self.scrub(text)

    def outcome(self, args: tuple[object, ...]) -> Reply:
        """Perform the call; give its reply or raise what Celery is to make of it."""
        started = self.around.clock.monotonic()
        ended = "error"
        try:
            with (
                working_on(self.operation, self.id, self.scrub),
                metrics.RUNNING.labels(self.operation).track_inprogress(),
            ):
                reply = self._guarded(args)
            ended = "ok"
        except GaiaError as error:
            metrics.ERRORS.labels(self.operation, type(error).__name__).inc()
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
            self.meters.ended[ended].inc()
            self.meters.run_seconds.observe(self.around.clock.monotonic() - started)

    def _guarded(self, args: tuple[object, ...]) -> Reply:
        """Perform the call; let no foreign error and no secret out."""
        with self.around.running.entered(self.id, marked=self.marked, fetched_at=self.fetched_at) as cancelled:
            try:
                return self._perform(args, cancelled)
            except Later as wish:
                self._come_back(wish.after_s)
                failure: GaiaError = DeadlineExceeded(self.operation, 0.0)
            except NewerPayload as error:
                if wire.times(getattr(self.task.request, wire.HEADER, None))[1] is not None:
                    self._come_back(NEWER_PAUSE_S)
                failure = error
                self._bury("no worker of the message's version came before its deadline", failure)
            except GaiaError as error:
                failure = _scrubbed(error, self.scrub)
            except (CeleryError, WorkerShutdown, WorkerTerminate):
                raise
            except BaseException as error:
                log.exception("a service failed unexpectedly")
                failure = InternalError(self.operation, type(error).__name__, self.scrub(str(error)))
            self._hand_back_if_lost()
            self._hand_back_if_stopping()
            self._retry_if_allowed(failure)
            if self.task.request.ignore_result and not isinstance(failure, Cancelled):
                self._bury("it failed, and its result is stored for nobody", failure)
            raise failure from None

    def _perform(self, args: tuple[object, ...], cancelled: CancelToken) -> Reply:
        if args:
            raise InvalidCall(self.operation, "args", "must be empty: fields travel by name")
        given = getattr(self.task.request, wire.HEADER, None)
        self.scope = scope = self._scope(given, cancelled)
        envelope = wire.Envelope.read(self.operation, given)
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
            return Reply(result, self.around.keyed_artifacts if keyed else self.around.artifacts)

    def _scope(self, given: object, cancelled: CancelToken) -> Scope:
        """Bound the run by the deadline of the envelope, read leniently: a newer one is refused later."""
        clock = self.around.clock
        now = clock.wall()
        published_at, deadline = wire.times(given)
        if published_at is not None:
            self.meters.wait_seconds.observe(max(0.0, now - published_at))
        deadline = now + self.around.deadline_s if deadline is None else deadline
        if deadline <= now:
            raise DeadlineExceeded(self.operation, round(now - deadline, 3))
        return Scope(
            id=self.id,
            operation=self.operation,
            ends_at=clock.monotonic() + (deadline - now),
            cancelled=cancelled,
            report=_Reporter(self.around.results, self.id, clock),
            clock=clock,
            attempts=int(self.task.request.retries or 0) + 1,
        )

    def _refuse_what_expired(self) -> None:
        """Drop a call that expired while it was held: Celery looks at that when it is fetched, not when it starts."""
        expires = self.task.request.expires
        if isinstance(expires, str):
            moment = datetime.fromisoformat(expires)
            if (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() <= self.around.clock.wall():
                raise Expired(self.id)

    def _refuse_what_keeps_killing(self) -> None:
        """Make a dead letter of a call that lost its worker too often: it may be what kills them."""
        if self.lost_leases >= self.around.delivery_cap:
            failure = WorkerLostTooOften(self.operation, self.lost_leases)
            self._bury("its workers were lost", failure)
            raise failure

    def _skip_what_is_done(self, envelope: wire.Envelope) -> None:
        """Commit a call without another run if its outcome is stored under its idempotency key."""
        if envelope.key is None or not self.lost_leases:
            return
        with reaching(self.around.results_url):
            if parse(self.around.results.get(keys.result(self.id))) is not None:
                raise Ignore

    def _go_to_holder(self, call: Call[Any]) -> None:
        """Lead a call about something that lives on another worker there, and end this run."""
        holder = call.holder()
        if holder is None or (own := identity.own()).owns(holder):
            return
        if holder.node == own.node or not self.around.nodes.lives(holder):
            raise HolderLost(holder.format())
        queue, held = keys.own_queue(holder.node), holding(self.tag)
        if held is not None and held.move(self.tag, queue):
            raise Ignore
        raise self.task.retry(countdown=0, queue=queue, max_retries=None, throw=False)

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
        policy = call.RETRY
        if scope.attempts < policy.attempts and call.may_retry(failure):
            pause_s = policy.pause_s(scope.attempts)
            log.info("attempt %d failed, the next is in %.3f s: %s", scope.attempts, pause_s, failure)
            self._come_back(pause_s, retries=scope.attempts, because=failure)

    def _come_back(self, after_s: float, *, retries: int | None = None, because: GaiaError | None = None) -> None:
        """Let the call wait in Redis and end this run, unless its deadline comes first."""
        if self.scope is not None and after_s >= self.scope.remaining_s():
            return
        holder = holding(self.tag)
        if holder is not None and holder.postpone(self.tag, self.around.clock.wall() + after_s, retries=retries):
            raise Retry(exc=because, when=after_s)
        # Another transport, or a pool of processes: Celery publishes the message anew.
        raise self.task.retry(exc=because, countdown=after_s, max_retries=None, throw=False)

    def _bury(self, reason: str, failure: GaiaError) -> None:
        holder = holding(self.tag)
        if holder is not None:
            holder.bury(self.tag, reason, str(failure))


class _Reporter:
    """Stores progress, at most ten times a second; the last word, with everything done, always."""

    def __init__(self, client: Any, call_id: str, clock: Clock) -> None:
        self._client = client
        self._id = call_id
        self._clock = clock
        self._next = 0.0

    def __call__(self, done: float, total: float | None, note: str) -> None:
        now = self._clock.monotonic()
        if now < self._next and done != total:
            return
        self._next = now + PROGRESS_INTERVAL_S
        try:
            progress_store.store(self._client, self._id, Progress(done, total, note[:200], time.time()))
        except Exception:
            log.debug("progress could not be stored", exc_info=True)


def _scrubbed(error: GaiaError, scrub: Scrubber) -> GaiaError:
    """Give the same error with secrets struck from its texts."""
    return type(error)(*(scrub(each) if isinstance(each, str) else each for each in error.args))

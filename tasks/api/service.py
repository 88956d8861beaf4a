"""HTTP requests, as a service."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from config.settings import Api
from gaia.contracts import api
from gaia.errors import (
    BadStatus,
    ChecksumMismatch,
    GaiaError,
)
from gaia.store.artifacts import Artifacts
from tasks.api import health, outgoing, proxies
from tasks.api.batch import Batch
from tasks.api.bounds import Bounds
from tasks.api.connections import Connections
from tasks.api.downloads import CHUNK_BYTES, Body, Opened
from tasks.api.engine import Engine
from tasks.api.gate import OPEN, Gate, names_of
from tasks.api.incoming import Answer
from tasks.api.outgoing import Outgoing
from tasks.api.parts import Parts
from tasks.api.proxies import Proxy, chosen, judge_behind
from tasks.api.redirects import Redirects
from tasks.api.single import Room, Single, Stream
from tasks.api.tally import Tally
from tasks.api.verdict import Verdict
from tasks.egress.gateway import Gateway
from tasks.limits.cluster import Limits
from tasks.limits.throttle import Throttle
from tasks.scope import Scope

LOOK_UPS: Final = 32
"""Names that a worker's batches look up at once."""

SUCCESS: Final = range(200, 300)


class ApiService:
    """The operations of the `api` queue. Thread-safe; its connections are kept alive between calls."""

    def __init__(
        self, *, settings: Api, gateway: Gateway, limits: Limits, artifacts: Artifacts | None = None, worker: str = ""
    ) -> None:
        """Dial nothing yet. Downloads need the artifact store."""
        self._user_agent = settings.user_agent
        self._gateway = gateway
        self._artifacts = artifacts
        self._worker = worker
        self._limits = limits
        self._tally = Tally()
        self._gate = Gate(limits, self._tally)
        self._verdict = Verdict(limits)
        self._proxies = proxies.read(settings.proxies)
        self._connections = Connections(
            gateway,
            settings.pool_connections,
            settings.ca_file,
            per_origin=settings.sessions_per_origin,
            wait_s=settings.session_wait_s,
        )
        self._single = Single(self._connections)
        ca_file = str(settings.ca_file or DEFAULT_CA_BUNDLE_PATH)
        self._parts = Parts(
            engine=Engine(gateway.judge, settings.bulk_connections, settings.session_wait_s, ca_file),
            gate=self._gate,
            verdict=self._verdict,
            tally=self._tally,
            gateway=gateway,
            names=ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="gaia-bulk-names"),
            proxies=self._proxies,
            user_agent=settings.user_agent,
            connect_timeout_s=settings.connect_timeout_s,
            batch_bytes=settings.batch_bytes,
        )

    def request(self, call: api.Request, scope: Scope) -> api.Response:
        """Send a request, follow redirects, read the whole answer.

        With `max_redirects` 0 a redirect is the answer. Every wait is bounded by what is left of `timeout_s`; a cancel
        closes the socket at once, only a look-up of a name under way goes on to its end (a dial's bound at most).

        Raises:
            InvalidCall: if the call cannot be sent as HTTP.
            Later: a limit keeps it out, and there is time to come back.
            LimitExceeded, CircuitOpen: a limit keeps it out until its deadline.
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TlsFailed: if there is no connection.
            PoolExhausted: if all sessions of the origin were busy for too long.
            BadReply, BodyTooLarge, TooManyRedirects: for what the server sent.
            ServerBusy: for an answer that asks to come back, while there are attempts left.
            TimedOut, Cancelled, DeadlineExceeded: when the call's time is over.
        """
        started = scope.clock.monotonic()
        sent = outgoing.first(call, self._user_agent)
        route = (call.verify, chosen(self._proxies, call))
        bounds = Bounds(scope, call.timeout_s)
        try:
            with bounds.watched():
                sent, answer = self._followed(call, sent, bounds, route)
        except GaiaError as error:
            self._settle(call, error, sent.host, scope)
            raise
        busy = self._verdict.busy(call, answer, sent.host)
        if busy is not None and self._verdict.again(call, busy, sent.host, scope.attempts, scope.remaining_s()):
            self._tally.count("retried")
            raise busy
        body = answer.unpacked(sent.host, call.max_body_bytes)
        elapsed_s = round(scope.clock.monotonic() - started, 6)
        return api.Response(answer.status, answer.headers(), body, sent.address.url, elapsed_s, scope.attempts)

    def request_many(self, call: api.RequestMany, scope: Scope) -> api.Outcomes:
        """Send many requests at once; see `tasks.api.batch`.

        Raises:
            Cancelled: of the call. Nothing else: each request has its own outcome.
        """
        return Batch(call, scope, self._parts).run()

    def download(self, call: api.Download, scope: Scope) -> api.Downloaded:
        """Store what a GET brings; see `tasks.api.downloads`.

        Raises:
            As `request`, and:
            BadStatus: for an answer without content to keep.
            BodyTooLarge: over `max_bytes`, or over what the artifact store holds.
            ChecksumMismatch: if it is not what `sha256` says.
            ArtifactsFull, ArtifactsUnavailable: of the store.
        """
        assert self._artifacts is not None  # noqa: S101 - a worker has a store
        started = scope.clock.monotonic()
        request = call.request()
        first = outgoing.first(request, self._user_agent)
        route = (call.verify, chosen(self._proxies, request))

        def open_stream(fields: dict[str, str], stack: ExitStack) -> Opened:
            return self._opened(call, first, fields, scope, (route, stack))

        names = names_of(call, first.host)

        throttle = Throttle(self._limits, names, if_away=OPEN)

        def pace(size_bytes: int) -> int:
            return throttle.leave(scope, size_bytes)

        body = Body(call, scope, open_stream, pace, self._resumed)
        try:
            with body.opened():
                artifact = self._artifacts.put(body)
        except GaiaError as error:
            self._settle(call, error, first.host, scope)
            raise
        if call.sha256 is not None and artifact.sha256 != call.sha256:
            self._artifacts.remove(artifact)
            raise ChecksumMismatch(first.host, call.sha256, artifact.sha256)
        answer = body.answer or Answer(0, [], b"")
        elapsed_s = round(scope.clock.monotonic() - started, 6)
        return api.Downloaded(
            artifact, answer.status, answer.headers(), body.url, artifact.size_bytes, artifact.sha256, elapsed_s,
            body.resumed,
        )  # fmt: skip

    def stats(self, call: api.Stats, scope: Scope) -> api.ApiStats:
        """Give every counter and gauge."""
        del call, scope
        return health.stats(self._worker, self._tally, self._connections, self._parts.engine)

    def health(self, call: api.Health, scope: Scope) -> api.ApiHealth:
        """Say how this worker is."""
        del call, scope
        return health.report(self._worker, self._connections, self._parts.engine)

    def close(self) -> None:
        """Close the idle connections and the engine; connections in use are closed when their call ends."""
        self._connections.close()
        self._parts.engine.close()
        self._parts.names.shutdown(wait=False, cancel_futures=True)

    def _followed(
        self, call: api.Request, sent: Outgoing, bounds: Bounds, route: tuple[bool, Proxy | None]
    ) -> tuple[Outgoing, Answer]:
        redirects = Redirects(call.max_redirects, self._tally)
        while True:
            room = self._room(call, sent, bounds.scope)
            self._judge(sent, route[1], bounds)
            with self._gate.passing(call, sent.host, bounds.scope, first=not redirects.hops) as passing:
                if not redirects.hops and bounds.scope.attempts == 1:
                    self._limits.tried(sent.host)
                answer = self._exchanged(sent, redirects.fields(sent), bounds, route, room)
                passing.status = answer.status
            hop = redirects.following(sent, answer)
            if hop is None:
                return sent, answer
            sent = hop

    def _room(self, call: api.Request, sent: Outgoing, scope: Scope) -> Room:
        room = Room(call.max_body_bytes, follows=call.max_redirects > 0)
        names = names_of(call, sent.host)
        if not self._limits.policy.bandwidths(names):
            return room
        throttle = Throttle(self._limits, names, if_away=OPEN)
        return replace(room, pace=partial(throttle.pace, scope), chunk_bytes=throttle.most_bytes(CHUNK_BYTES))

    def _exchanged(
        self, sent: Outgoing, fields: dict[str, str], bounds: Bounds, route: tuple[bool, Proxy | None], room: Room
    ) -> Answer:
        started = bounds.scope.clock.monotonic()
        self._tally.started()
        try:
            answer = self._single.exchange(sent, fields, bounds, route, room)
        except BaseException as failure:
            self._tally.broke(failure)
            raise
        self._tally.answered(answer.status, len(answer.body), bounds.scope.clock.monotonic() - started)
        return answer

    def _opened(
        self,
        call: api.Download,
        sent: Outgoing,
        fields: dict[str, str],
        scope: Scope,
        through: tuple[tuple[bool, Proxy | None], ExitStack],
    ) -> Opened:
        """Ask for a body, or the rest of one, and follow redirects; what is to be closed goes on the stack."""
        route, stack = through
        bounds = Bounds(scope, call.idle_s)
        stack.enter_context(bounds.watched())
        redirects = Redirects(call.max_redirects, self._tally)
        while True:
            self._judge(sent, route[1], bounds)
            with ExitStack() as inner:
                first = not redirects.hops and not fields
                passing = inner.enter_context(self._gate.passing(call, sent.host, scope, first=first))
                headers = {**redirects.fields(sent), **fields}
                stream = inner.enter_context(self._counted(self._single.streaming(sent, headers, bounds, route), scope))
                passing.status = stream.answer.status
                if not redirects.leads_on(stream.answer):
                    self._require_success(call, stream.answer, sent.host)
                    stack.push(inner.pop_all())
                    return sent, stream
                stream.read(CHUNK_BYTES)  # a short body is read away so that the connection can be kept
            sent = redirects.following(sent, stream.answer) or sent

    @contextmanager
    def _counted(self, streaming: AbstractContextManager[Stream], scope: Scope) -> Iterator[Stream]:
        """Count an exchange whose body is read inside the block."""
        started = scope.clock.monotonic()
        self._tally.started()
        try:
            with streaming as stream:
                yield stream
        except BaseException as failure:
            self._tally.broke(failure)
            raise
        self._tally.answered(stream.answer.status, stream.received_bytes, scope.clock.monotonic() - started)

    def _require_success(self, call: api.Download, answer: Answer, host: str) -> None:
        if answer.status in SUCCESS:
            return
        busy = self._verdict.busy(call, answer, host)
        raise busy or BadStatus(host, answer.status)

    def _settle(self, call: api.Request | api.Download, error: GaiaError, host: str, scope: Scope) -> None:
        """Say whether wiring may run the call again: if the policy allows, and the host's budget has a retry left."""
        scope.retryable = self._verdict.again(call, error, host, scope.attempts, scope.remaining_s())
        if scope.retryable:
            self._tally.count("retried")

    def _judge(self, sent: Outgoing, proxy: Proxy | None, bounds: Bounds) -> None:
        if proxy is not None:
            judge_behind(self._gateway, sent.address.origin, bounds.left_s())

    def _resumed(self) -> None:
        self._tally.count("resumed")

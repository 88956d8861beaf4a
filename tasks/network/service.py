"""Names, bandwidth, connections and reachability, as a service."""

import time
from collections.abc import Sequence
from contextlib import suppress

from config.nameservers import FORM, Server, server
from gaia.contracts import network
from gaia.errors import (
    Cancelled,
    DeadlineExceeded,
    GaiaError,
    InvalidCall,
    LeaseLost,
    NameNotFound,
    ResolverFailed,
    Unreachable,
)
from gaia.outcome import Outcome
from tasks.egress.cache import Answer
from tasks.egress.gateway import Gateway
from tasks.egress.resolver import TYPES
from tasks.egress.stub import Stub
from tasks.limits.cluster import Limits
from tasks.limits.policy import CONNECTIONS, levels
from tasks.limits.protocols import LEASE_TTL_S, Away, Lease
from tasks.limits.throttle import Throttle
from tasks.network import echo
from tasks.network.dialling import Dialler, Ports
from tasks.network.pings import Pinger
from tasks.network.probes import Prober
from tasks.scope import Scope

HEALTH_S = 1.0
"""How long a name server may take to be healthy."""

HEALTH_SERVERS = 3


class NetworkService:
    """The operations of the `network` queue. The cache of names is the gateway's, what is limited is Redis'."""

    def __init__(
        self, *, gateway: Gateway, limits: Limits, ports: Sequence[str], ca_file: str, worker: str, capacity: int
    ) -> None:
        """Take the process's gateway, whose resolver the dialler uses too; probe only these ports."""
        self._gateway = gateway
        self._resolver = gateway.resolver
        self._shown = gateway.resolver.shown
        self._limits = limits
        self._ports = Ports(ports)
        dialler = Dialler(gateway, self._ports)
        self._prober = Prober(dialler, ca_file)
        self._pinger = Pinger(gateway, dialler, self._ports)
        self._worker = worker
        self._capacity = capacity

    def resolve(self, call: network.Resolve, scope: Scope) -> network.Resolved:
        """Look a name up.

        A cancel is seen when the answer is there, after `timeout_s` at the latest.

        Raises:
            NameNotFound: if the name does not exist, has no such record, or is no name.
            ResolverFailed: if no name server answered in time.
            EgressDenied: if a chosen server may not be asked.
        """
        if call.servers:
            return self._ask(call, scope)
        scope.check()
        answer = self._shown(call.name, call.type)
        if answer is None:
            try:
                answer = self._resolver.resolve(call.name, call.type, timeout_s=scope.bound_s(call.timeout_s))
            finally:
                scope.check()
            return _resolved(call.name, answer)
        found: network.Resolved | None = answer.memo
        if found is None:
            found = answer.memo = _resolved(call.name, answer)
        return found

    def _ask(self, call: network.Resolve, scope: Scope) -> network.Resolved:
        servers = [self._judged(each) for each in call.servers]
        try:
            answer = self._resolver.ask(servers, call.name, call.type, timeout_s=scope.bound_s(call.timeout_s))
        finally:
            scope.check()
        return _resolved(call.name, answer)

    def _judged(self, text: str) -> Server:
        found = server(text)
        if found is None:
            raise InvalidCall("network.resolve", "servers", f"{text!r} is {FORM}")
        address, port = found
        self._ports.require(address, port)
        self._gateway.judge.judge(address, address, port)
        return found

    def resolve_many(self, call: network.ResolveMany, scope: Scope) -> network.Resolutions:
        """Look names up at once, 500 questions under way at most; an item that failed fails no other.

        Raises:
            Cancelled, DeadlineExceeded: of the call.
        """
        timeout_s = scope.bound_s(call.timeout_s)
        answers = self._resolver.resolve_many(call.names, call.type, timeout_s=timeout_s, cancelled=scope.cancelled)
        scope.check()
        return network.Resolutions(tuple(map(_outcome, call.names, answers)))

    def flush_dns(self, call: network.FlushDns, scope: Scope) -> network.Flushed:
        """Forget every answer.

        Raises:
            Unreachable: Redis did not answer: other workers go on with what they have.
        """
        del call
        scope.check()
        return network.Flushed(self._resolver.flush())

    def throttle(self, call: network.Throttle, scope: Scope) -> network.Throttled:
        """Wait until so many bytes may have moved.

        Raises:
            LimitExceeded: that takes longer than `timeout_s`, or than the call has.
            Cancelled, DeadlineExceeded: of the call; what was granted by then is spent.
        """
        began = scope.clock.monotonic()
        names = levels(host=call.host, key=call.key, job=call.job)
        throttle = Throttle(self._limits, names, if_away=Away.FAIL_OPEN)
        throttle.pace(scope, call.size_bytes, longest_s=call.timeout_s)
        return network.Throttled(call.size_bytes, round(scope.clock.monotonic() - began, 6))

    def acquire_connection(self, call: network.AcquireConnection, scope: Scope) -> network.Connection:
        """Take a slot.

        Raises:
            LimitExceeded: none was free within `timeout_s`.
            Unreachable: Redis did not answer: then no slot is given.
            Cancelled, DeadlineExceeded: of the call.
        """
        slots = self._limits.policy.connections(call.host)
        lease = self._limits.lend(scope, slots, ttl_s=call.ttl_s, longest_s=call.timeout_s)
        try:
            scope.check()
        except (Cancelled, DeadlineExceeded):
            with suppress(LeaseLost, Unreachable):
                self._limits.give_back(lease)
            raise
        return network.Connection(f"{lease.id}@{call.host}", call.host, call.ttl_s)

    def release_connection(self, call: network.ReleaseConnection, scope: Scope) -> network.Released:
        """Give a slot back.

        Raises:
            LeaseLost: it is not held: it lapsed, was given back before, or was never given.
            Unreachable: Redis did not answer; the slot is free when its time is over.
        """
        scope.check()
        identifier, host = call.parts()
        slots = self._limits.policy.connections(host)
        self._limits.give_back(Lease(identifier, slots, LEASE_TTL_S))
        return network.Released(host)

    def probe_tcp(self, call: network.ProbeTcp, scope: Scope) -> network.TcpProbed:
        """Connect to a port; see `Prober.tcp` for what it raises."""
        return self._prober.tcp(call, scope)

    def probe_tls(self, call: network.ProbeTls, scope: Scope) -> network.TlsProbed:
        """Make a TLS handshake; see `Prober.tls` for what it raises."""
        return self._prober.tls(call, scope)

    def probe_http(self, call: network.ProbeHttp, scope: Scope) -> network.HttpProbed:
        """Send a request; see `Prober.http` for what it raises."""
        return self._prober.http(call, scope)

    def ping(self, call: network.Ping, scope: Scope) -> network.Pinged:
        """See whether a host is there; see `Pinger.ping` for what it raises."""
        return self._pinger.ping(call, scope)

    def stats(self, call: network.Stats, scope: Scope) -> network.NetworkStats:
        """Tell how look-ups went here, and what the cluster has leased.

        Raises:
            Unreachable: Redis did not answer.
        """
        del call
        scope.check()
        counts = self._resolver.tally.counts()
        own = counts["hit"] + counts["stale"] + counts["negative"]
        total = own + counts["joined"] + counts["shared"] + counts["asked"]
        slots = self._limits.policy.connections("localhost")[0]
        return network.NetworkStats(
            worker=self._worker,
            names=len(self._resolver.cache),
            capacity=self._capacity,
            hits=counts["hit"],
            stale=counts["stale"],
            negative=counts["negative"],
            joined=counts["joined"],
            shared=counts["shared"],
            asked=counts["asked"],
            failed=counts["failed"],
            hit_ratio=round(own / total, 6) if total else 0.0,
            shared_ratio=round((own + counts["shared"]) / total, 6) if total else 0.0,
            connections=self._limits.lent(f"slots:{CONNECTIONS}"),
            connections_limit=slots.limit,
        )

    def health(self, call: network.Health, scope: Scope) -> network.NetworkHealth:
        """Ask the first name servers and Redis whether they are there; takes at most four seconds."""
        del call
        servers = [self._check_server(each, scope) for each in self._resolver.servers[:HEALTH_SERVERS]]
        try:
            self._limits.lent(f"slots:{CONNECTIONS}")
            redis = network.Check("redis", ok=True, detail="")
        except Unreachable as failure:
            redis = network.Check("redis", ok=False, detail=str(failure))
        permitted = echo.permitted()
        icmp = network.Check("icmp", ok=permitted, detail="" if permitted else "not permitted: ping connects instead")
        state = "healthy" if redis.ok and all(each.ok for each in servers) else "degraded"
        if not any(each.ok for each in servers):
            state = "unhealthy"
        return network.NetworkHealth(state, self._worker, (*servers, redis, icmp))

    @staticmethod
    def _check_server(asked: Server, scope: Scope) -> network.Check:
        name = "name server {} port {}".format(*asked)
        began = time.monotonic()
        try:
            Stub.of([asked]).ask(".", "NS", scope.bound_s(HEALTH_S))
        except TimeoutError:
            return network.Check(name, ok=False, detail=f"no answer within {HEALTH_S:g} s")
        except ResolverFailed as failure:
            return network.Check(name, ok=False, detail=failure.reason)
        return network.Check(name, ok=True, detail=f"answered within {time.monotonic() - began:.3f} s")

    def close(self) -> None:
        """End the resolver's threads and connections."""
        self._resolver.close()


def _resolved(name: str, answer: Answer) -> network.Resolved:
    is_address = answer.type in TYPES
    return network.Resolved(
        name,
        answer.type,
        answer.records if is_address else (),
        round(answer.ttl_s, 3),
        answer.cached,
        () if is_address else answer.records,
        answer.stale,
    )


def _outcome(name: str, answer: Answer | NameNotFound | ResolverFailed) -> Outcome[network.Resolved]:
    if isinstance(answer, GaiaError):
        return Outcome(ok=False, error=answer)
    return Outcome(ok=True, result=_resolved(name, answer))

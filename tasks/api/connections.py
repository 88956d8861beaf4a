"""Kept-alive connections, dialled through the gateway.

The idle ones belong to `Connections`, in memory; they are lost with the worker, which costs new dials and nothing
else. A connection in use belongs to the thread that took it; of one origin no more are in use than settings allow.
"""

import ssl
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, port_by_scheme

from gaia.errors import PoolExhausted
from tasks import metrics
from tasks.api.bounds import BoundedSocket, Bounds, PlainSocket, TlsSocket
from tasks.api.outgoing import Origin
from tasks.api.proxies import Proxy
from tasks.egress.gateway import Gateway


@dataclass(frozen=True)
class Key:
    """What one connection can serve. `verify` is part of it: an unverified one must not serve a call that verifies."""

    origin: Origin
    verify: bool
    proxy: Proxy | None = None


class Connection(HTTPConnection):
    """urllib3's connection, on a socket of ours: it is dialled to a judged address, and obeys the call's bounds."""

    sock: BoundedSocket | None

    def __init__(self, key: Key, gateway: Gateway, context: ssl.SSLContext | None) -> None:
        """Connect later, when the first request is sent."""
        super().__init__(key.origin.host, key.origin.port)
        # `Host` names the port unless it is the scheme's own.
        self.default_port = port_by_scheme[key.origin.scheme]  # type: ignore[misc]  # one class serves both schemes
        self.key = key
        self.reused = False
        if key.proxy is not None and key.origin.scheme == "https":
            self.set_tunnel(key.origin.host, key.origin.port, key.proxy.headers())
        self._gateway = gateway
        self._context = context
        self._bounds: Bounds | None = None

    def serve(self, bounds: Bounds) -> None:
        """Work for a call from now on."""
        self._bounds = bounds
        if self.sock is not None:
            self.sock.bounds = bounds
            bounds.hold(self.sock)

    def connect(self) -> None:
        """Dial, and shake hands if the scheme is https: the name and the certificate are checked against the host."""
        assert self._bounds is not None  # noqa: S101 - `serve` comes first
        bounds = self._bounds
        plain = self._dial(bounds)
        self.sock = plain
        if self._context is None:
            return
        if self.key.proxy is not None:
            self._tunnel()
        try:
            secured = self._context.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise
        assert isinstance(secured, TlsSocket)  # noqa: S101 - the context makes no other
        secured.bounds = bounds
        self.sock = secured
        bounds.hold(secured)
        secured.do_handshake()

    def _dial(self, bounds: Bounds) -> PlainSocket:
        to = self.key.proxy or self.key.origin
        sock = self._gateway.dial(to.host, to.port, timeout_s=bounds.left_s(), cancelled=bounds.scope.cancelled)
        plain = PlainSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        plain.bounds = bounds
        bounds.hold(plain)
        return plain


class Connections:
    """Thread-safe. Keeps at most `limit` idle connections, the origins used last."""

    def __init__(
        self, gateway: Gateway, limit: int, ca_file: Path | None = None, *, per_origin: int = 100, wait_s: float = 5.0
    ) -> None:
        """Start with none. Certificates are checked against `ca_file`, or those of the certifi package."""
        self._gateway = gateway
        self._limit = limit
        self._per_origin = per_origin
        self._wait_s = wait_s
        self._busy: Counter[Origin] = Counter()
        self._freed = threading.Condition()
        self._contexts = {True: _context(ca_file), False: _unverified()}
        self._lock = threading.Lock()
        self._idle: OrderedDict[Key, list[Connection]] = OrderedDict()
        self._kept = 0
        self._closed = False
        metrics.API_CONNECTIONS.watch(self.states)

    @contextmanager
    def using(self, origin: Origin, bounds: Bounds) -> Iterator[None]:
        """Be one of those that use connections to an origin.

        Raises:
            PoolExhausted: if none of them was done in time.
            Cancelled, DeadlineExceeded, TimedOut: of the call.
        """
        ends_at = time.monotonic() + min(self._wait_s, bounds.left_s())
        with bounds.scope.cancelled.calling(self._stir), self._freed:
            while self._busy[origin] >= self._per_origin:
                left_s = ends_at - time.monotonic()
                if left_s <= 0:
                    bounds.left_s()
                    raise PoolExhausted(f"sessions of {origin.host}", self._per_origin, self._wait_s)
                self._freed.wait(left_s)
                bounds.left_s()
            self._busy[origin] += 1
        try:
            yield
        finally:
            with self._freed:
                self._busy[origin] -= 1
                if not self._busy[origin]:
                    del self._busy[origin]
                self._freed.notify_all()

    def counts(self) -> tuple[int, int]:
        """Give how many connections are in use, and how many are idle."""
        with self._freed:
            busy = self._busy.total()
        return busy, self._kept

    def states(self) -> dict[str, float]:
        """Give the same by name, for the metrics."""
        busy, idle = self.counts()
        return {"busy": busy, "idle": idle}

    def full(self) -> bool:
        """Say whether an origin has all the connections it may have."""
        with self._freed:
            return any(count >= self._per_origin for count in self._busy.values())

    def _stir(self) -> None:
        with self._freed:
            self._freed.notify_all()

    def take(self, key: Key, *, fresh: bool = False) -> Connection:
        """Give an idle connection that the server has not closed, or a new one; that alone with `fresh`."""
        while not fresh and (idle := self._pop(key)) is not None:
            # Bytes that nobody asked for are no answer to the next request either.
            if idle.is_connected:
                idle.reused = True
                return idle
            idle.close()
        return Connection(key, self._gateway, self._contexts[key.verify] if key.origin.scheme == "https" else None)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next call to its origin; one that the server closes is dropped."""
        surplus: Connection | None = connection
        with self._lock:
            if connection.sock is not None and not self._closed:
                self._idle.setdefault(connection.key, []).append(connection)
                self._idle.move_to_end(connection.key)
                self._kept += 1
                surplus = self._oldest() if self._kept > self._limit else None
        if surplus is not None:
            surplus.close()

    def close(self) -> None:
        """Close the idle connections; those in use are closed when they come back."""
        with self._lock:
            self._closed = True
            idle = [each for connections in self._idle.values() for each in connections]
            self._idle.clear()
            self._kept = 0
        for each in idle:
            each.close()

    def _pop(self, key: Key) -> Connection | None:
        with self._lock:
            return self._remove(key, -1) if key in self._idle else None

    def _oldest(self) -> Connection:
        return self._remove(next(iter(self._idle)), 0)

    def _remove(self, key: Key, index: int) -> Connection:
        connections = self._idle[key]
        found = connections.pop(index)
        self._kept -= 1
        if not connections:
            del self._idle[key]
        return found


def _context(ca_file: Path | None) -> ssl.SSLContext:
    return _ours(ssl.create_default_context(cafile=str(ca_file) if ca_file else DEFAULT_CA_BUNDLE_PATH))


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _ours(context)


def _ours(context: ssl.SSLContext) -> ssl.SSLContext:
    context.sslsocket_class = TlsSocket
    context.set_alpn_protocols(["http/1.1"])
    return context

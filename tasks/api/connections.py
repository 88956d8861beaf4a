"""Kept-alive connections, dialled through the gateway.

The idle ones belong to `Connections`, in memory; they are lost with the worker, which costs new dials and nothing
else. A connection in use belongs to the thread that took it.
"""

import ssl
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, port_by_scheme

from tasks.api.bounds import BoundedSocket, Bounds, PlainSocket, TlsSocket
from tasks.egress.gateway import Gateway


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port (RFC 6454). `host` is ASCII, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class Key:
    """What one connection can serve. `verify` is part of it: an unverified one must not serve a call that verifies."""

    origin: Origin
    verify: bool


class Connection(HTTPConnection):
    """urllib3's connection, on a socket of ours: it is dialled to a judged address, and obeys the call's bounds."""

    sock: BoundedSocket | None

    def __init__(self, key: Key, gateway: Gateway, context: ssl.SSLContext | None) -> None:
        """Connect later, when the first request is sent."""
        super().__init__(key.origin.host, key.origin.port)
        # `Host` names the port unless it is the scheme's own.
        self.default_port = port_by_scheme[key.origin.scheme]  # type: ignore[misc]  # one class serves both schemes
        self.key = key
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
        if self._context is None:
            self.sock = plain
            return
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
        origin = self.key.origin
        sock = self._gateway.dial(origin.host, origin.port, timeout_s=bounds.left_s(), cancelled=bounds.scope.cancelled)
        plain = PlainSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        plain.bounds = bounds
        bounds.hold(plain)
        return plain


class Connections:
    """Thread-safe. Keeps at most `limit` idle connections, the origins used last."""

    def __init__(self, gateway: Gateway, limit: int, ca_file: Path | None = None) -> None:
        """Start with none. Certificates are checked against `ca_file`, or those of the certifi package."""
        self._gateway = gateway
        self._limit = limit
        self._contexts = {True: _context(ca_file), False: _unverified()}
        self._lock = threading.Lock()
        self._idle: OrderedDict[Key, list[Connection]] = OrderedDict()
        self._kept = 0
        self._closed = False

    def take(self, key: Key) -> Connection:
        """Give an idle connection that the server has not closed, or a new one."""
        while (idle := self._pop(key)) is not None:
            # Bytes that nobody asked for are no answer to the next request either.
            if idle.is_connected:
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

"""A forward proxy on loopback, through which a browser reaches only what a dialler allows.

A `Proxy` owns its listening socket, one thread a connection, and the last refusal of each address. When it dies, the
browser behind it reaches nothing.
"""

import select
import socket
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

from gaia.errors import EgressDenied, GaiaError, TimedOut

MARK: Final = "x-gaia-egress"
"""The header of an answer that is the proxy's own, not the server's."""

MAX_CONNECTIONS: Final = 256
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_REFUSALS: Final = 1024
CHUNK_BYTES: Final = 64 * 1024
DIAL_S: Final = 10.0
IDLE_S: Final = 60.0
CLOSE_S: Final = DIAL_S + 1.0

# RFC 9110, 7.6.1. Transfer-Encoding stays: the body travels on as it came.
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "upgrade"}
)


class Dialler(Protocol):
    """Whatever opens connections, to judged addresses alone."""

    def dial(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        """Connect to the host.

        Raises:
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TimedOut: when there is no connection.
        """


class Proxy:
    """Serves CONNECT, and requests in absolute form, one a connection.

    It listens on loopback and asks for no password, since Chromium takes none for a proxy without a round trip for
    each context. Another program of the machine can use it, and reaches what the dialler allows, no more.
    """

    def __init__(self, dialler: Dialler, *, idle_s: float = IDLE_S) -> None:
        """Listen on a free port of 127.0.0.1 and start to serve."""
        self._dialler = dialler
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._refusals: OrderedDict[tuple[str, int], GaiaError] = OrderedDict()
        self._open: dict[threading.Thread, list[socket.socket]] = {}
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=MAX_CONNECTIONS)
        self.port: Final[int] = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="gaia-proxy", daemon=True)
        self._acceptor.start()

    def refusal(self, host: str, port: int) -> GaiaError | None:
        """Give why the host could not be reached the last time, None when it could."""
        with self._lock:
            return self._refusals.get((host, port))

    def close(self) -> None:
        """Close every connection and end every thread; a dial under way may last its `DIAL_S`."""
        with self._lock:
            self._closed = True
            held = [each for sockets in self._open.values() for each in sockets]
            threads = [*self._open, self._acceptor]
        for each in (self._listener, *held):
            _wake(each)
        ends_at = time.monotonic() + CLOSE_S
        for thread in threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        self._listener.close()

    # --- connections

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                # The process is out of descriptors: those of other connections come free.
                time.sleep(0.05)
                continue
            self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(client,), name="gaia-proxy-connection", daemon=True)
        with self._lock:
            if len(self._open) < MAX_CONNECTIONS and not self._closed:
                self._open[thread] = [client]
                with suppress(RuntimeError):  # the system gives no more threads
                    thread.start()
                    return
                del self._open[thread]
        client.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            client.settimeout(self._idle_s)
            self._answer(client)
        except (OSError, _Malformed):
            pass  # the browser sees its connection close
        finally:
            with self._lock:
                held = self._open.pop(threading.current_thread(), [client])
            for each in held:
                each.close()

    def _answer(self, client: socket.socket) -> None:
        head, rest = _read_head(client, self._idle_s)
        request = _Request.parse(head)
        try:
            server = self._dial(request.host, request.port)
        except GaiaError as failure:
            _reply(
                client, _status_of(failure), f"{MARK}: {'denied' if isinstance(failure, EgressDenied) else 'failed'}"
            )
            return
        if request.method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            flows = _Flow(client, server, rest), _Flow(server, client)
        else:
            flows = _Flow(client, server, request.origin_form() + rest), _Response(server, client)
        client.settimeout(0.0)
        server.settimeout(0.0)
        _relay(self._idle_s, *flows)

    def _dial(self, host: str, port: int) -> socket.socket:
        try:
            server = self._dialler.dial(host, port, timeout_s=DIAL_S)
        except GaiaError as failure:
            self._remember(host, port, failure)
            raise
        with self._lock:
            self._refusals.pop((host, port), None)
            self._open[threading.current_thread()].append(server)
            if self._closed:
                _wake(server)
        return server

    def _remember(self, host: str, port: int, failure: GaiaError) -> None:
        with self._lock:
            self._refusals[host, port] = failure
            self._refusals.move_to_end((host, port))
            while len(self._refusals) > MAX_REFUSALS:
                self._refusals.popitem(last=False)


# --- HTTP


class _Malformed(Exception):  # noqa: N818 - a finding; the connection is closed upon it
    """What came is no HTTP that this proxy serves."""


@dataclass(frozen=True)
class _Request:
    method: str
    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, head: bytes) -> Self:
        line, headers = _parse_head(head)
        try:
            method, target, version = line.split(" ")
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            port = parts.port or (80 if parts.scheme == "http" else None)
        except ValueError:
            raise _Malformed from None
        known = parts.scheme == ("" if method == "CONNECT" else "http")
        if not known or not version.startswith("HTTP/1.") or not parts.hostname or port is None:
            raise _Malformed
        path = (parts.path or "/") + (f"?{parts.query}" if "?" in target else "")
        return cls(method, parts.hostname, port, path, headers)

    def origin_form(self) -> bytes:
        """Give the head as a server expects it (RFC 9112, 3.2.1); the answer is to end the connection."""
        literal = f"[{self.host}]" if ":" in self.host else self.host
        host = literal if self.port == 80 else f"{literal}:{self.port}"  # noqa: PLR2004 - the port of http
        kept = [each for each in _end_to_end(self.headers) if each[0].lower() != "host"]
        return _head(f"{self.method} {self.path} HTTP/1.1", [("Host", host), *kept, ("Connection", "close")])


def _parse_head(head: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    line, *rest = head.decode("latin-1").split("\r\n")
    if any(mark in each for each in (line, *rest) for mark in "\r\n\0"):
        raise _Malformed
    headers = []
    for each in rest:
        name, colon, value = each.partition(":")
        if not colon or not name or name != name.strip():
            raise _Malformed
        headers.append((name, value.strip()))
    return line, tuple(headers)


def _end_to_end(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    named = {
        token.strip().lower() for name, value in headers if name.lower() == "connection" for token in value.split(",")
    }
    dropped = _HOP_BY_HOP | (named - {"transfer-encoding", "content-length"})
    return [each for each in headers if each[0].lower() not in dropped]


def _head(line: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _read_head(source: socket.socket, within_s: float) -> tuple[bytes, bytes]:
    """Read up to the empty line; give what stands before and after it."""
    ends_at = time.monotonic() + within_s
    got = b""
    while (end := got.find(b"\r\n\r\n")) < 0:
        if len(got) > MAX_HEAD_BYTES or time.monotonic() > ends_at:
            raise _Malformed
        chunk = source.recv(CHUNK_BYTES)
        if not chunk:
            raise _Malformed
        got += chunk
    return got[:end], got[end + 4 :]


def _status_of(failure: GaiaError) -> str:
    if isinstance(failure, EgressDenied):
        return "403 Forbidden"
    return "504 Gateway Timeout" if isinstance(failure, TimedOut) else "502 Bad Gateway"


def _reply(client: socket.socket, status: str, header: str) -> None:
    # No body: the page that asked may read it, and need not learn why.
    client.sendall(f"HTTP/1.1 {status}\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode("latin-1"))


# --- sockets


class _Flow:
    """One direction of a connection: it waits either to read or to write what it read, never both."""

    def __init__(self, source: socket.socket, sink: socket.socket, pending: bytes = b"") -> None:
        self._source = source
        self._sink = sink
        self._pending = pending
        self._open = True

    def waits_for(self) -> tuple[socket.socket, int] | None:
        if self._pending:
            return self._sink, select.POLLOUT
        return (self._source, select.POLLIN) if self._open else None

    def step(self) -> None:
        if self._pending:
            self._pending = self._pending[self._sink.send(self._pending) :]
            return
        chunk = self._source.recv(CHUNK_BYTES)
        self._pending = self.passed(chunk)
        if not chunk:
            self._open = False
            with suppress(OSError):
                self._sink.shutdown(socket.SHUT_WR)

    def passed(self, chunk: bytes) -> bytes:
        """Give what travels on of what came."""
        return chunk


class _Response(_Flow):
    """A server's answer: its head says `Connection: close`, whatever the server said, so that none is reused."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        super().__init__(source, sink)
        self._head: bytes | None = b""

    def passed(self, chunk: bytes) -> bytes:
        if self._head is None:
            return chunk
        self._head += chunk
        done = b""
        while self._head is not None and b"\r\n\r\n" in self._head:
            head, _, rest = self._head.partition(b"\r\n\r\n")
            line, headers = _parse_head(head)
            if not line.startswith("HTTP/1."):
                raise _Malformed
            kept = [each for each in _end_to_end(headers) if each[0].lower() != MARK]
            done += _head(line, [*kept, ("Connection", "close")])
            # After an interim answer (RFC 9110, 15.2) comes another head.
            interim = line.startswith(("HTTP/1.1 1", "HTTP/1.0 1"))
            done, self._head = (done, rest) if interim else (done + rest, None)
        if self._head is not None and (len(self._head) > MAX_HEAD_BYTES or not chunk):
            raise _Malformed
        return done


def _relay(idle_s: float, *flows: _Flow) -> None:
    """Copy until each flow has ended, one broke, or nothing moved for `idle_s`."""
    while waits := [(flow, *wait) for flow in flows if (wait := flow.waits_for())]:
        poller = select.poll()
        masks: dict[int, int] = {}
        for _, end, mask in waits:
            masks[end.fileno()] = masks.get(end.fileno(), 0) | mask
        for number, mask in masks.items():
            poller.register(number, mask)
        ready = dict(poller.poll(idle_s * 1000))
        if not ready:
            return
        for flow, end, mask in waits:
            if ready.get(end.fileno(), 0) & (mask | select.POLLERR | select.POLLHUP):
                with suppress(BlockingIOError):
                    flow.step()


def _wake(held: socket.socket) -> None:
    """End whatever waits on a socket of another thread; closing it there would free its number too early."""
    with suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)

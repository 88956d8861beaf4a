"""Small pages over HTTP, for probes and Prometheus: a worker's own ones, and the monitor's.

Reading only (GET and HEAD), a thread a request. Without a token a server answers requests for this machine's own names
alone: a web site could otherwise have its own name resolve to this machine and read the pages through a visitor's
browser (DNS rebinding).

A connection is a stranger's until its head was read and may ask for its page. Strangers have seconds, and when there
are too many the oldest is dropped, so that no number of slow ones keeps a new one out. What is open to all is answered
to strangers, without a place: so probes are answered whatever the others do. Everything else takes one of the places.
"""

import hmac
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tasks.runtime.bounded import BoundedSocket

STRANGERS: Final = 64
"""Connections at once that have not shown yet that they may ask; with one more, the oldest is dropped."""

STRANGER_S: Final = 2.0
"""So long a stranger may take to send its whole head, and again to take its answer."""

HEAD_BYTES: Final = 128 * 1024

AT_ONCE: Final = 16
"""Answers at once to others than strangers; more are refused."""

SENDING_S: Final = 20.0
"""So long any other client may take to take its answer."""

_LOCAL_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})

WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - told from others, not bound

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    path: str
    query: dict[str, str] = field(default_factory=dict)
    host: str = ""
    """The name and port by which the server was asked."""


@dataclass(frozen=True)
class Page:
    """An answer."""

    body: bytes
    status: int = HTTPStatus.OK
    kind: str = TEXT
    fields: dict[str, str] = field(default_factory=dict)
    """Further header fields."""

    @classmethod
    def of(cls, value: object, status: int = HTTPStatus.OK) -> "Page":
        """Make an answer of JSON."""
        return cls(json.dumps(value, indent=2).encode() + b"\n", status, JSON)


NOT_FOUND: Final = Page(b"there is no such page\n", HTTPStatus.NOT_FOUND)
CROWDED: Final = Page(b"too many requests at once\n", HTTPStatus.SERVICE_UNAVAILABLE)

Answer = Callable[[Asked], Page]


def reached(host: str) -> str:
    """Give the host by which a server that listens there is reached from its own machine."""
    return "127.0.0.1" if host in WILDCARDS else host


def local_names(host: str) -> frozenset[str]:
    """Give the names by which a server on this machine may be asked that listens on `host` and has no password."""
    return _LOCAL_NAMES | {host.lower(), f"[{host.lower()}]"}


class Server:
    """Serves one function's pages; nothing but its port is owned. `close` ends it within about a second."""

    def __init__(
        self,
        host: str,
        port: int,
        answer: Answer,
        *,
        token: str | None = None,
        open_to_all: Collection[str] = (),
        at_once: int = AT_ONCE,
    ) -> None:
        """Listen. With a `token`, whoever asks for a page that is not `open_to_all` has to send it.

        Raises:
            OSError: if the port cannot be had.
        """
        self._server = _Server(host, port, answer, token, frozenset(open_to_all), at_once)
        self._thread = threading.Thread(target=self._server.serve_forever, name="gaia-pages", daemon=True)

    @property
    def port(self) -> int:
        """Give the port, also when it was left open."""
        return int(self._server.server_address[1])

    def accept(self, token: str) -> None:
        """Take one more token, beside the one that it was given."""
        self._server.tokens.append(token.encode())

    def start(self) -> None:
        """Answer, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Answer nothing more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(STRANGER_S)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, answer: Answer, token: str | None, open_to_all: frozenset[str], at_once: int
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answer, self.open_to_all = answer, open_to_all
        self.tokens = [] if token is None else [token.encode()]
        self.names = local_names(host)
        self.places = threading.BoundedSemaphore(at_once)
        self._strangers: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without http.server's look-up of the machine's full name, which may wait for a name server."""
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; for want of room the oldest stranger goes."""
        sock, address = self.socket.accept()
        found = _Connection(sock.family, sock.type, sock.proto, fileno=sock.detach())
        found.ends_at = time.monotonic() + STRANGER_S
        with self._lock:
            if len(self._strangers) >= STRANGERS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                # Its thread finds an end, and closes it.
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._strangers[found] = None
        return found, address

    def know(self, request: socket.socket) -> None:
        """Take a connection for none of a stranger any more."""
        with self._lock:
            self._strangers.pop(request, None)

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        self.know(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that an answer could not be given: most often, its client has gone."""
        del request, client_address
        log.debug("a page could not be served: %s", type(sys.exception()).__name__)


class _Connection(BoundedSocket):
    """As a server has it: what it reads is bounded, too."""

    _read = 0

    def recv_into(self, *given: Any) -> int:
        count = super().recv_into(*given)
        self._read += count
        if self._read > HEAD_BYTES:
            raise ConnectionError("the head is too large")
        return count


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    connection: _Connection
    server_version = "gaia"
    sys_version = ""

    def do_GET(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            self._send(refusal, STRANGER_S)
        elif self._path() in self.server.open_to_all:
            self._send(self._answered(), STRANGER_S)
        elif not self.server.places.acquire(blocking=False):
            self._send(CROWDED, STRANGER_S)
        else:
            try:
                self.server.know(self.connection)
                self._send(self._answered(), SENDING_S)
            finally:
                self.server.places.release()

    do_HEAD = do_GET  # noqa: N815 - as above

    def _path(self) -> str:
        return urlsplit(self.path).path

    def _send(self, found: Page, bound_s: float) -> None:
        self.connection.ends_at = time.monotonic() + bound_s
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        self.send_header("Content-Length", str(len(found.body)))
        for name, value in found.fields.items():
            self.send_header(name, value)
        if found.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found.body)

    def end_headers(self) -> None:
        """Add what stands in every answer, those of http.server itself too."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def _answered(self) -> Page:
        parts = urlsplit(self.path)
        try:
            return self.server.answer(Asked(parts.path, dict(parse_qsl(parts.query)), self.headers.get("Host", "")))
        except Exception:
            log.exception("the page %s could not be made", parts.path[:100])
            return Page(b"the page could not be made; the log tells why\n", HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refusal(self) -> Page | None:
        if self._path() in self.server.open_to_all:
            return None
        if not self.server.tokens:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            return None if name in self.server.names else Page(b"not by that name\n", HTTPStatus.FORBIDDEN)
        given = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if any(hmac.compare_digest(given, b"Bearer " + each) for each in self.server.tokens):
            return None
        return Page(b"a bearer token is needed\n", HTTPStatus.UNAUTHORIZED)

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests: probes come every few seconds, and a query is nobody's business."""

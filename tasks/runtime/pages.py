"""Small pages over HTTP, for probes and Prometheus: a worker's own ones, and the monitor's.

Reading only (GET and HEAD), a thread a request, at most `AT_ONCE`. Without a token a server answers requests for this
machine's own names alone: a web site could otherwise have its own name resolve to this machine and read the pages
through a visitor's browser (DNS rebinding).
"""

import hmac
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

AT_ONCE: Final = 16
"""Requests at once; more are refused by a closed connection."""

SILENCE_S: Final = 5.0
"""A client that sends or takes nothing for so long is dropped."""

LOCAL_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})

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

Answer = Callable[[Asked], Page]


class Server:
    """Serves one function's pages; nothing but its port is owned. `close` ends it within about a second."""

    def __init__(
        self, host: str, port: int, answer: Answer, *, token: str | None = None, open_to_all: Collection[str] = ()
    ) -> None:
        """Listen. With a `token`, whoever asks for a page that is not `open_to_all` has to send it.

        Raises:
            OSError: if the port cannot be had.
        """
        self._server = _Server(host, port, answer, token, frozenset(open_to_all))
        self._thread = threading.Thread(target=self._server.serve_forever, name="gaia-pages", daemon=True)

    @property
    def port(self) -> int:
        """Give the port, also when it was left open."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Answer nothing more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(SILENCE_S)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, answer: Answer, token: str | None, open_to_all: frozenset[str]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answer, self.token, self.open_to_all = answer, token, open_to_all
        self._places = threading.BoundedSemaphore(AT_ONCE)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without http.server's look-up of the machine's full name, which may wait for a name server."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that an answer could not be given: most often, its client has gone."""
        del request, client_address
        log.debug("a page could not be served: %s", type(sys.exception()).__name__)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "gaia"
    sys_version = ""
    timeout = SILENCE_S

    def do_GET(self) -> None:
        found = self._refusal() or self._answered()
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        self.send_header("Content-Length", str(len(found.body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in found.fields.items():
            self.send_header(name, value)
        if found.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found.body)

    do_HEAD = do_GET  # noqa: N815 - as above

    def _answered(self) -> Page:
        parts = urlsplit(self.path)
        try:
            return self.server.answer(Asked(parts.path, dict(parse_qsl(parts.query)), self.headers.get("Host", "")))
        except Exception:
            log.exception("the page %s could not be made", parts.path[:100])
            return Page(b"the page could not be made; the log tells why\n", HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refusal(self) -> Page | None:
        if urlsplit(self.path).path in self.server.open_to_all:
            return None
        if self.server.token is None:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            return None if name in LOCAL_NAMES else Page(b"not by that name\n", HTTPStatus.FORBIDDEN)
        given = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, f"Bearer {self.server.token}".encode()):
            return None
        return Page(b"a bearer token is needed\n", HTTPStatus.UNAUTHORIZED)

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests: probes come every few seconds, and a query is nobody's business."""

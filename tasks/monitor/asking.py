"""Asking another server for a page: bounded in time and size, and no redirect is followed.

The time is one for everything: connecting, the head and the body, however slowly they drip. Only how long the system
looks up a name is the system's own to bound.
"""

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection, IncompleteRead
from typing import Any, Final
from urllib.parse import urlsplit

from tasks.runtime.bounded import Bounded, BoundedSocket
from tasks.runtime.pages import Page

CHUNK_BYTES: Final = 64 * 1024

Take = Callable[[int], None]
"""Is told of bytes as they come, and raises ValueError if they are too many."""


def page(
    base: str, path: str, *, bound_s: float, most_bytes: int, token: str | None = None, take: Take | None = None
) -> Page:
    """Give the page at `path` below the address `base`, as the server gave it.

    Raises:
        OSError, HTTPException: if it could not be had in time.
        ValueError: if `base` is no address, or the page is too large, for `take` too.
    """
    with closing(_connection(base, time.monotonic() + bound_s)) as connection:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", urlsplit(base).path.rstrip("/") + path, headers=headers)
        with connection.getresponse() as reply:
            body = bytearray()
            while chunk := reply.read(min(CHUNK_BYTES, most_bytes + 1 - len(body))):
                if take is not None:
                    take(len(chunk))
                body += chunk
                if len(body) > most_bytes:
                    raise ValueError("the page is too large")
            if reply.length:
                raise IncompleteRead(bytes(body), reply.length)
            return Page(bytes(body), reply.status, reply.headers.get("Content-Type", "text/plain"))


def _connection(base: str, ends_at: float) -> HTTPConnection:
    parts = urlsplit(base)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("no address of pages")
    kind = _SecureConnection if parts.scheme == "https" else _Connection
    connection = kind(parts.hostname, parts.port)
    connection.ends_at = ends_at
    return connection


class _Connection(HTTPConnection):
    ends_at: float

    def connect(self) -> None:
        """Connect to the first address that answers in the time that is left."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _, address) in enumerate(found, 1):
            sock = BoundedSocket(family, kind, protocol)
            sock.ends_at = self.ends_at
            try:
                sock.bound()
                sock.connect(address)
                sock.bound()  # for the handshake that may follow
            except OSError:
                sock.close()
                if number == len(found):
                    raise
            else:
                self.sock = sock
                return


class _SecureConnection(HTTPSConnection, _Connection):
    def __init__(self, host: str, port: int | None) -> None:
        context = ssl.create_default_context()
        context.sslsocket_class = _SecureSocket
        super().__init__(host, port, context=context)

    def connect(self) -> None:
        """Shake hands, too: in all within what was left once connected."""
        super().connect()
        sock: Any = self.sock  # of the context's class
        sock.ends_at = self.ends_at


class _SecureSocket(Bounded, ssl.SSLSocket):
    pass

"""Asking another server for a page: bounded in time and size, and no redirect is followed."""

import time
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

from tasks.runtime.pages import Page

CHUNK_BYTES = 64 * 1024


def page(base: str, path: str, *, bound_s: float, most_bytes: int, token: str | None = None) -> Page:
    """Give the page at `path` below the address `base`, as the server gave it.

    Raises:
        OSError, HTTPException: if it could not be had in time.
        ValueError: if `base` is no address, or the page is too large.
    """
    ends_at = time.monotonic() + bound_s
    connection = _connection(base, bound_s)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", urlsplit(base).path.rstrip("/") + path, headers=headers)
        sock = connection.sock
        reply = connection.getresponse()
        body = bytearray()
        while chunk := reply.read1(CHUNK_BYTES):
            body += chunk
            if len(body) > most_bytes:
                raise ValueError("the page is too large")
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the page took too long")
            sock.settimeout(left_s)
        return Page(bytes(body), reply.status, reply.headers.get("Content-Type", "text/plain"))
    finally:
        connection.close()


def _connection(base: str, bound_s: float) -> HTTPConnection:
    parts = urlsplit(base)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("no address of pages")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname, parts.port, timeout=bound_s)

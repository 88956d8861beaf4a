"""Heads of HTTP messages, as they pass a forward proxy."""

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from gaia.errors import EgressDenied, GaiaError, TimedOut

MARK: Final = "x-gaia-egress"
"""The header of an answer that is the proxy's own, not the server's."""

MAX_HEAD_BYTES: Final = 64 * 1024

# RFC 9110, 7.6.1. Transfer-Encoding stays: the body travels on as it came.
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "upgrade"}
)


class Malformed(Exception):  # noqa: N818 - a finding; the connection is closed upon it
    """What came is no HTTP that this proxy serves."""


@dataclass(frozen=True)
class Request:
    """What a browser asks of a proxy: CONNECT, or a request in absolute form."""

    method: str
    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, head: bytes) -> Self:
        """Read a head, without its empty line.

        Raises:
            Malformed: if it is none of both.
        """
        line, headers = parsed(head)
        try:
            method, target, version = line.split(" ")
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            port = parts.port or (80 if parts.scheme == "http" else None)
        except ValueError:
            raise Malformed from None
        known = parts.scheme == ("" if method == "CONNECT" else "http")
        if not known or not version.startswith("HTTP/1.") or not parts.hostname or port is None:
            raise Malformed
        path = (parts.path or "/") + (f"?{parts.query}" if "?" in target else "")
        return cls(method, parts.hostname, port, path, headers)

    def origin_form(self) -> bytes:
        """Give the head as a server expects it (RFC 9112, 3.2.1); the answer is to end the connection."""
        literal = f"[{self.host}]" if ":" in self.host else self.host
        host = literal if self.port == 80 else f"{literal}:{self.port}"  # noqa: PLR2004 - the port of http
        kept = [each for each in end_to_end(self.headers) if each[0].lower() != "host"]
        return written(f"{self.method} {self.path} HTTP/1.1", [("Host", host), *kept, ("Connection", "close")])


def parsed(head: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Give the first line and the fields.

    Raises:
        Malformed: if it is no head.
    """
    line, *rest = head.decode("latin-1").split("\r\n")
    if any(mark in each for each in (line, *rest) for mark in "\r\n\0"):
        raise Malformed
    headers = []
    for each in rest:
        name, colon, value = each.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed
        headers.append((name, value.strip()))
    return line, tuple(headers)


def end_to_end(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Give the fields that travel on."""
    named = {
        token.strip().lower() for name, value in headers if name.lower() == "connection" for token in value.split(",")
    }
    dropped = _HOP_BY_HOP | (named - {"transfer-encoding", "content-length"})
    return [each for each in headers if each[0].lower() not in dropped]


def written(line: str, headers: list[tuple[str, str]]) -> bytes:
    """Write a head with its empty line."""
    lines = [line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def refusal(failure: GaiaError) -> bytes:
    """Write the answer for a host that could not be reached; no body: the page that asked need not learn why."""
    status = "502 Bad Gateway"
    if isinstance(failure, EgressDenied | TimedOut):
        status = "403 Forbidden" if isinstance(failure, EgressDenied) else "504 Gateway Timeout"
    kind = "denied" if isinstance(failure, EgressDenied) else "failed"
    return written(f"HTTP/1.1 {status}", [(MARK, kind), ("Content-Length", "0"), ("Connection", "close")])

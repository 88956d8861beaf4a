"""Probes: is it reachable, what certificate does it show, how fast does it answer."""

import hashlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlsplit

from gaia.contracts import network
from gaia.errors import BadReply, ConnectFailed, NameNotFound, TimedOut, TlsFailed
from tasks.egress import names
from tasks.network.dialling import Dialled, Dialler
from tasks.scope import Clock, Scope

BODY_LIMIT_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
PORTS: Final = {"http": 80, "https": 443}
CONTEXTS: Final = 32
_DER: Final = 2
"""`_ssl.ENCODING_DER`."""


class Prober:
    """Thread-safe; holds TLS contexts alone, since reading the authorities takes longer than a handshake."""

    def __init__(self, dialler: Dialler, ca_file: str, clock: Clock | None = None) -> None:
        """Check certificates against the authorities of a file in PEM."""
        self._dialler = dialler
        self._wall = (clock or Clock()).wall

        @lru_cache(CONTEXTS)
        def context(alpn: tuple[str, ...], verify: bool) -> ssl.SSLContext:  # noqa: FBT001 - a cache key
            return _context(ca_file, alpn, verify=verify)

        self._context = context

    def tcp(self, call: network.ProbeTcp, scope: Scope) -> network.TcpProbed:
        """Connect and close.

        Raises:
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TimedOut: as they say.
        """
        ends_at = time.monotonic() + call.timeout_s
        with (
            _translated(scope, call.host, ends_at, call),
            self._dialler.dial(scope, call.host, call.port, ends_at) as found,
        ):
            return network.TcpProbed(call.host, call.port, found.address, found.dns_s, found.connect_s)

    def tls(self, call: network.ProbeTls, scope: Scope) -> network.TlsProbed:
        """Make a handshake that verifies; if the certificate is refused, a second one that does not, to tell about it.

        Raises:
            TlsFailed: there is no handshake even so.
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TimedOut: as they say.
        """
        ends_at = time.monotonic() + call.timeout_s
        try:
            return self._handshake(call, scope, ends_at, reason="")
        except _Unverified as refusal:
            return self._handshake(call, scope, ends_at, reason=refusal.reason)

    def _handshake(self, call: network.ProbeTls, scope: Scope, ends_at: float, *, reason: str) -> network.TlsProbed:
        name = _plain(call.server_name or call.host)
        context = self._context(call.alpn, not reason)
        with (
            _translated(scope, call.host, ends_at, call),
            self._dialler.dial(scope, call.host, call.port, ends_at) as found,
        ):
            began = time.monotonic()
            sock = found.secure(context, name)
            return self._told(call, found, sock, reason, round(time.monotonic() - began, 6))

    def _told(
        self, call: network.ProbeTls, found: Dialled, sock: ssl.SSLSocket, reason: str, tls_s: float
    ) -> network.TlsProbed:
        # Until 3.13 the chain is only here; there it is public, as bytes alone.
        chain = tuple(map(_certificate, sock._sslobj.get_unverified_chain() or ()))  # type: ignore[attr-defined]  # noqa: SLF001
        cipher = sock.cipher()
        return network.TlsProbed(
            host=call.host,
            port=call.port,
            address=found.address,
            protocol=sock.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=sock.selected_alpn_protocol() or "",
            verified=not reason,
            reason=reason,
            expires_in_s=round(chain[0].not_after_s - self._wall(), 3) if chain else 0.0,
            chain=chain,
            dns_s=found.dns_s,
            connect_s=found.connect_s,
            tls_s=tls_s,
        )

    def http(self, call: network.ProbeHttp, scope: Scope) -> network.HttpProbed:
        """Send one request over a fresh connection.

        Raises:
            TlsFailed, BadReply: as they say.
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TimedOut: as they say.
        """
        began = time.monotonic()
        ends_at = began + call.timeout_s
        parts = urlsplit(call.url)
        host = parts.hostname or ""
        port = parts.port or PORTS[parts.scheme]
        try:
            with (
                _translated(scope, host, ends_at, call),
                self._dialler.dial(scope, host, port, ends_at) as found,
            ):
                if parts.scheme == "http":
                    return _exchange(call, parts, found, found.sock, 0.0, began)
                shaken = time.monotonic()
                sock = found.secure(self._context((), call.verify), _plain(host))
                return _exchange(call, parts, found, sock, time.monotonic() - shaken, began)
        except _Unverified as refusal:
            raise TlsFailed(host, refusal.reason) from None


class _Unverified(Exception):  # noqa: N818 - a finding, caught where it is known what it means
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextmanager
def _translated(scope: Scope, host: str, ends_at: float, call: Any) -> Iterator[None]:
    """Translate what sockets, ssl and http.client raise; a cancel, the deadline and the call's own time go first."""
    try:
        yield
    except (OSError, ssl.SSLError, http.client.HTTPException, ValueError) as failure:
        scope.check()
        if time.monotonic() >= ends_at or isinstance(failure, TimeoutError):
            raise TimedOut(call.OPERATION, call.timeout_s) from None
        if isinstance(failure, ssl.SSLCertVerificationError):
            raise _Unverified(failure.verify_message or "the certificate is not trusted") from None
        if isinstance(failure, ssl.SSLError):
            raise TlsFailed(host, failure.reason or type(failure).__name__) from None
        if isinstance(failure, OSError):
            raise ConnectFailed(host, (failure.strerror or type(failure).__name__).lower()) from None
        raise BadReply(host, type(failure).__name__) from None


def _context(ca_file: str, alpn: tuple[str, ...], *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _plain(host: str) -> str:
    """Give the name that a certificate is for.

    Raises:
        NameNotFound: it is no name.
    """
    found = names.canonical(host)
    if found is None:
        raise NameNotFound(host, "A or AAAA")
    return found


def _certificate(given: Any) -> network.Certificate:
    told = given.get_info()
    return network.Certificate(
        subject=_distinguished(told.get("subject", ())),
        issuer=_distinguished(told.get("issuer", ())),
        serial=told.get("serialNumber", ""),
        names=tuple(value for kind, value in told.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}),
        not_before_s=ssl.cert_time_to_seconds(told["notBefore"]),
        not_after_s=ssl.cert_time_to_seconds(told["notAfter"]),
        sha256=hashlib.sha256(given.public_bytes(_DER)).hexdigest(),
    )


def _distinguished(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    return ", ".join(f"{kind}={value}" for part in name for kind, value in part)


def _exchange(
    call: network.ProbeHttp, parts: SplitResult, found: Dialled, sock: socket.socket, tls_s: float, began: float
) -> network.HttpProbed:
    sent = time.monotonic()
    sock.sendall(_request(call, parts))
    response = http.client.HTTPResponse(sock, method=call.method)
    try:
        if not response.fp.peek(1):
            raise http.client.RemoteDisconnected("no answer")
        first_byte_s = time.monotonic() - sent
        response.begin()
        size = 0
        while size < BODY_LIMIT_BYTES and (chunk := response.read(min(CHUNK_BYTES, BODY_LIMIT_BYTES - size))):
            size += len(chunk)
        return network.HttpProbed(
            url=call.url,
            status=response.status,
            address=found.address,
            dns_s=found.dns_s,
            connect_s=found.connect_s,
            tls_s=round(tls_s, 6),
            first_byte_s=round(first_byte_s, 6),
            total_s=round(time.monotonic() - began, 6),
            size_bytes=size,
            truncated=size >= BODY_LIMIT_BYTES,
        )
    finally:
        response.close()


def _request(call: network.ProbeHttp, parts: SplitResult) -> bytes:
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
        f"?{quote(parts.query, safe='/?%:@!$&()*+,;=~-._')}" if parts.query else ""
    )
    host = _plain(parts.hostname or "")
    host = f"[{host}]" if ":" in host else host
    if parts.port not in {None, PORTS[parts.scheme]}:
        host += f":{parts.port}"
    given = {"host": host, "user-agent": "gaia-probe", "accept": "*/*"}
    given |= {name.lower(): value for name, value in call.headers.items()} | {"connection": "close"}
    lines = [f"{call.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n"

"""One exchange of the bulk engine, and the libcurl handle that makes it."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pycurl

from gaia.errors import BadReply, BodyTooLarge, ConnectFailed, EgressDenied, GaiaError, TimedOut, TlsFailed
from tasks.api.incoming import MOST_FIELDS, MOST_LINE_BYTES, PACKED_SPARE_BYTES, Answer, read_fields
from tasks.api.outgoing import REDIRECTS, Outgoing
from tasks.api.proxies import Proxy
from tasks.egress.judge import Judge

KEPT_HANDLES: Final = 1000
REDIRECT_BYTES: Final = 64 * 1024

_BROKE_OFF: Final = frozenset({pycurl.E_GOT_NOTHING, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, pycurl.E_PARTIAL_FILE})
_NO_HTTP: Final = frozenset({pycurl.E_FTP_WEIRD_SERVER_REPLY, pycurl.E_UNSUPPORTED_PROTOCOL})
_CALLBACK_SAID_NO: Final = frozenset({pycurl.E_WRITE_ERROR, pycurl.E_ABORTED_BY_CALLBACK})


class _Socket:
    """A descriptor that pycurl duplicates and then lets go of."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def __del__(self) -> None:
        os.close(self._number)


@dataclass(eq=False)
class Transfer:
    """A request with leave to be sent, to one of `addresses`; then `answer` or `error`."""

    sent: Outgoing
    fields: dict[str, str]
    addresses: tuple[str, ...]
    verify: bool
    timeout_s: float
    connect_timeout_s: float
    limit_bytes: int
    follows: bool
    operation: str
    whole_timeout_s: float
    done: Callable[["Transfer"], None]
    proxy: Proxy | None = None
    answer: Answer | None = None
    error: GaiaError | None = None
    abandoned: bool = False
    handle: Any = None
    _heads: list[bytes] = field(default_factory=list)
    _chunks: list[bytes] = field(default_factory=list)
    _room: int = -1
    _skips: bool = False

    def fail(self, error: GaiaError) -> None:
        """End with an error; the first one stands."""
        self.error = self.error or error

    def opened(self, judge: Judge, _purpose: int, to: Any) -> Any:
        """Open a socket for libcurl if the address passes: the last word on what is dialled."""
        host, port = (
            (self.proxy.host, self.proxy.port) if self.proxy else (self.sent.host, self.sent.address.origin.port)
        )
        try:
            judge.judge(host, to.addr[0], to.addr[1])
        except EgressDenied as refusal:
            self.fail(refusal)
            return pycurl.SOCKET_BAD
        if to.addr[1] != port:
            self.fail(EgressDenied(host, to.addr[0], "another port"))
            return pycurl.SOCKET_BAD
        return _Socket(socket.socket(to.family, to.socktype, to.protocol).detach())

    def head(self, line: bytes) -> int | None:
        """Take a header line; 0 ends the transfer."""
        if line.startswith(b"HTTP/") and not (self._heads and self._room >= 0):
            self._heads = []
            words = line.split(None, 2)
            if len(words) > 1 and words[1][:1] == b"1" and words[1] != b"100":
                self.fail(BadReply(self.sent.host, f"an exchange cannot end with status {words[1].decode('latin-1')}"))
                return 0
        if len(line) > MOST_LINE_BYTES or len(self._heads) > MOST_FIELDS + 1:
            self.fail(BadReply(self.sent.host, "its header is too long"))
            return 0
        if line.strip():
            self._heads.append(line)
        return None

    def body(self, chunk: bytes) -> int | None:
        """Take a part of the body; 0 ends the transfer."""
        if self._room < 0:
            self._room = self._whole_room()
        self._room -= len(chunk)
        if self._room < 0:
            if not self._skips:
                self.fail(BodyTooLarge(self.sent.host, self.limit_bytes))
            return 0
        if not self._skips:
            self._chunks.append(chunk)
        return None

    def conclude(self, code: int, text: str) -> None:
        """Make the answer, or the error of what libcurl says."""
        skipped = self._skips and code in _CALLBACK_SAID_NO
        try:
            if self.error is None and (code == 0 or skipped):
                status, fields = read_fields(self._heads, self.sent.host)
                self.answer = Answer(status, fields, b"".join(self._chunks))
            elif self.error is None:
                self.error = self._failure(code, text)
        except GaiaError as bad:
            self.error = bad
        self._chunks = []

    def _whole_room(self) -> int:
        heads = [each.lower() for each in self._heads]
        words = heads[0].split(None, 2) if heads else []
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        if self.follows and status in REDIRECTS and any(each.startswith(b"location:") for each in heads):
            self._skips = True
            return REDIRECT_BYTES
        packed = any(each.startswith(b"content-encoding:") for each in heads)
        return self.limit_bytes + (PACKED_SPARE_BYTES if packed else 0)

    def _failure(self, code: int, text: str) -> GaiaError:  # noqa: PLR0911 - one for each kind
        host = self.sent.host
        if code == pycurl.E_OPERATION_TIMEDOUT:
            connecting = not self.handle.getinfo(pycurl.CONNECT_TIME)
            if connecting and self.connect_timeout_s < self.timeout_s:
                return ConnectFailed(host, f"no connection within {self.connect_timeout_s:.3f} s")
            return TimedOut(self.operation, self.whole_timeout_s)
        if code == pycurl.E_COULDNT_CONNECT:
            number = self.handle.getinfo(pycurl.OS_ERRNO)
            return ConnectFailed(host, os.strerror(number).lower() if number else "no connection")
        if code in {pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT}:
            return self._tls_failure(code, text)
        if "connect tunnel failed" in text.lower():
            return ConnectFailed(host, "the proxy refused the tunnel")
        if code in _BROKE_OFF:
            return ConnectFailed(host, "the server broke the connection off")
        if code in _NO_HTTP or code in _CALLBACK_SAID_NO:
            return BadReply(host, "it is no HTTP")
        return ConnectFailed(host, f"libcurl error {code}")

    def _tls_failure(self, code: int, text: str) -> GaiaError:
        host, lower = self.sent.host, text.lower()
        if any(
            each in lower
            for each in ("syscall", "unexpected eof", "connection reset", "reason(0)", "recv failure", "send failure")
        ):
            return ConnectFailed(host, "the server broke the connection off")
        if "subject name" in lower:
            return TlsFailed(host, f"the certificate is not valid for {host!r}")
        known = 0 if code == pycurl.E_SSL_CONNECT_ERROR else self.handle.getinfo(pycurl.SSL_VERIFYRESULT)
        return TlsFailed(host, _verify_text(known) if known else text.rpartition(":")[2].strip() or "protocol error")


def _verify_text(code: int) -> str:
    """Give OpenSSL's text for the commonest verification errors (openssl-verification-options(1))."""
    texts = {10: "certificate has expired", 18: "self-signed certificate", 19: "self-signed certificate in chain"}
    return texts.get(code, f"certificate verify error {code}: {_unknown(code)}")


def _unknown(code: int) -> str:
    return "unable to get local issuer certificate" if code in {2, 20, 21} else "the certificate is not trusted"


class Handles:
    """Makes libcurl handles for transfers, and keeps them for the next ones. For the engine's thread alone."""

    def __init__(self, judge: Judge, ca_file: str) -> None:
        """Judge what is dialled; check certificates against a file of authorities."""
        self._judge = judge
        self._ca_file = ca_file
        self._idle: list[Any] = []

    def take(self, transfer: Transfer) -> Any:
        """Give a handle that will make a transfer."""
        handle = self._idle.pop() if self._idle else pycurl.Curl()
        sent = transfer.sent
        handle.setopt(pycurl.URL, sent.address.url)
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.PATH_AS_IS, 1)
        handle.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        handle.setopt(pycurl.TIMEOUT_MS, max(1, int(transfer.timeout_s * 1000)))
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(min(transfer.connect_timeout_s, transfer.timeout_s) * 1000)))
        handle.setopt(pycurl.HEADERFUNCTION, transfer.head)
        handle.setopt(pycurl.WRITEFUNCTION, transfer.body)
        handle.setopt(pycurl.OPENSOCKETFUNCTION, partial(transfer.opened, self._judge))
        self._route(handle, transfer)
        if sent.address.origin.scheme == "https":
            handle.setopt(pycurl.CAINFO, self._ca_file)
            handle.setopt(pycurl.SSL_VERIFYPEER, int(transfer.verify))
            handle.setopt(pycurl.SSL_VERIFYHOST, 2 if transfer.verify else 0)
        handle.setopt(pycurl.HTTPHEADER, _lines(transfer.fields, sent.body))
        _say(handle, sent)
        return handle

    def give_back(self, transfer: Transfer) -> None:
        """Keep the handle of a transfer that has ended, without anything of it."""
        handle, transfer.handle = transfer.handle, None
        if len(self._idle) < KEPT_HANDLES:
            handle.reset()
            self._idle.append(handle)
        else:
            handle.close()

    def _route(self, handle: Any, transfer: Transfer) -> None:
        proxy, origin = transfer.proxy, transfer.sent.address.origin
        host, port = (proxy.host, proxy.port) if proxy else (origin.host, origin.port)
        # Variables of the environment name no proxy here, and no host goes round the one that is named.
        handle.setopt(pycurl.PROXY, f"http://{proxy.host}:{proxy.port}" if proxy else "")
        handle.setopt(pycurl.NOPROXY, "")
        if proxy is not None and proxy.credentials:
            handle.setopt(pycurl.PROXYUSERPWD, proxy.credentials)
        if transfer.addresses:
            shown = ",".join(f"[{each}]" if ":" in each else each for each in transfer.addresses)
            # "+": it may be looked up elsewhere after a minute; it is given anew with every transfer in any case.
            handle.setopt(pycurl.RESOLVE, [f"+{host}:{port}:{shown}"])


def _lines(fields: dict[str, str], body: bytes | None) -> list[bytes]:
    lines = [(f"{name}: {value}" if value else f"{name};").encode("latin-1") for name, value in fields.items()]
    if body:
        # libcurl's own additions: a form's type, and a question before a large body that many servers never answer.
        lines.append(b"Expect:")
    if body is not None and not any(name.lower() == "content-type" for name in fields):
        lines.append(b"Content-Type:")
    return lines


def _say(handle: Any, sent: Outgoing) -> None:
    if sent.body is not None:
        handle.setopt(pycurl.POST, 1)
        handle.setopt(pycurl.POSTFIELDS, sent.body)
    elif sent.method == "HEAD":
        handle.setopt(pycurl.NOBODY, 1)
        return
    if sent.method != ("GET" if sent.body is None else "POST"):
        handle.setopt(pycurl.CUSTOMREQUEST, sent.method)

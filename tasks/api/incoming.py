"""Answers as they came: status, header fields, body, whoever read them off the wire."""

import email.utils
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from typing import Final

from requests.cookies import MockRequest, MockResponse, RequestsCookieJar

from gaia.errors import BadReply, BodyTooLarge
from tasks.api.outgoing import REDIRECTS, Outgoing, plain_request

MOST_FIELDS: Final = 100
MOST_LINE_BYTES: Final = 65_536
"""The bounds of http.client; beyond them an answer is a bad reply."""

PACKED_SPARE_BYTES: Final = 64 * 1024
"""A packed body may be larger than what it holds by its framing, not by more."""

_INFLATED: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content codings to `wbits` of zlib."""

_CODINGS: Final = 5
"""More codings on top of each other are no body but an attack."""


@dataclass(frozen=True)
class Answer:
    """Status, header fields in their order, and the body as it came over the wire."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def value(self, name: str) -> str | None:
        """Give the value of a field, the first of several; `name` is in lower case."""
        return next((value for each, value in self.fields if each.lower() == name), None)

    def location(self) -> str | None:
        """Give where a redirect leads, None if this is none."""
        return self.value("location") if self.status in REDIRECTS else None

    def headers(self) -> dict[str, str]:
        """Give the fields by lower-case name, several of one name joined (RFC 9110 section 5.3)."""
        found: dict[str, str] = {}
        for name, value in self.fields:
            lower = name.lower()
            known = found.get(lower)
            # Values of set-cookie hold commas.
            joint = "\n" if lower == "set-cookie" else ", "
            found[lower] = value if known is None else known + joint + value
        return found

    def unpacked(self, host: str, limit_bytes: int) -> bytes:
        """Give the body without its content codings.

        Raises:
            BodyTooLarge: if it is over the limit; nothing beyond that was unpacked.
            BadReply: if it is not what its codings say.
        """
        body = self.body
        codings = ",".join(value for name, value in self.fields if name.lower() == "content-encoding")
        if codings and body:
            body = unpack(body, codings, host, limit_bytes)
        if len(body) > limit_bytes:
            raise BodyTooLarge(host, limit_bytes)
        return body


def unpack(body: bytes, codings: str, host: str, limit_bytes: int) -> bytes:
    """Undo content codings, the last first; one that is not known leaves the body as it is.

    Raises:
        BodyTooLarge, BadReply: see `Answer.unpacked`.
    """
    names = [each.strip().lower() for each in codings.split(",") if each.strip()]
    if len(names) > _CODINGS:
        raise BadReply(host, "its body has too many content encodings")
    for index, name in enumerate(reversed(names)):
        if name == "identity":
            continue
        wbits = _INFLATED.get(name)
        if wbits is None:
            return body
        outermost = index < len(names) - 1
        body = _inflate(body, wbits, host, limit_bytes, PACKED_SPARE_BYTES if outermost else 0)
    return body


def _inflate(body: bytes, wbits: int, host: str, limit_bytes: int, spare_bytes: int) -> bytes:
    """Unpack all members of a body."""
    room = limit_bytes + spare_bytes
    parts: list[bytes] = []
    try:
        while body:
            stream = zlib.decompressobj(wbits)
            try:
                part = stream.decompress(body, room + 1)
            except zlib.error:
                if wbits != 15 or parts:  # noqa: PLR2004 - "deflate" may lack the frame of zlib (RFC 9110 section 8.4.1.2)
                    raise
                stream = zlib.decompressobj(-15)
                part = stream.decompress(body, room + 1)
            room -= len(part)
            if room < 0:
                raise BodyTooLarge(host, limit_bytes)
            parts.append(part)
            if not stream.eof:
                raise BadReply(host, "the body does not fit its content encoding: it breaks off")
            body = stream.unused_data.lstrip(b"\0")
    except zlib.error:
        if not parts:
            raise BadReply(host, "the body does not fit its content encoding") from None
        # Bytes after the last member are no part of the body (RFC 1952 section 2.2), as curl and gzip(1) have it.
    return b"".join(parts)


def read_fields(lines: Iterable[bytes], host: str) -> tuple[int, list[tuple[str, str]]]:
    """Read a status line and header fields, without the empty line that ends them.

    Raises:
        BadReply: if there are too many, one is too long, or their framing contradicts itself.
    """
    heads = iter(lines)
    status = _status(next(heads, b""), host)
    fields: list[tuple[str, str]] = []
    for line in heads:
        if len(line) > MOST_LINE_BYTES:
            raise BadReply(host, "a header line is too long")
        if line[:1] in {b" ", b"\t"} and fields:
            # A folded line (RFC 9112 section 5.2).
            name, value = fields.pop()
            fields.append((name, value + " " + line.decode("latin-1").strip()))
            continue
        raw, _, value = line.decode("latin-1").partition(":")
        fields.append((raw.strip(), value.strip()))
    if len(fields) > MOST_FIELDS:
        raise BadReply(host, f"it has more than {MOST_FIELDS} header fields")
    lengths = {value for name, value in fields if name.lower() == "content-length"}
    if len(lengths) > 1:
        raise BadReply(host, "its header contradicts itself")
    return status, fields


def _status(line: bytes, host: str) -> int:
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():  # noqa: PLR2004 - version, status
        raise BadReply(host, "it is no HTTP")
    return int(words[1])


def retry_after_s(answer: Answer, now: float, most_s: float) -> float:
    """Give how long the server asks to be left alone (RFC 9110 section 10.2.3), at most so long; 0 if it does not."""
    text = (answer.value("retry-after") or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), most_s)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp() if text else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, moment - now), most_s)


def keep_cookies(jar: RequestsCookieJar, sent: Outgoing, answer: Answer) -> None:
    """Keep what the server set, for the requests that follow within the same call."""
    set_cookies = [value for name, value in answer.fields if name.lower() == "set-cookie"]
    if not set_cookies:
        return
    message = Message()
    for each in set_cookies:
        message["Set-Cookie"] = each
    told = MockResponse(message)
    jar.extract_cookies(told, MockRequest(plain_request(sent)))  # type: ignore[arg-type]  # what http.cookiejar asks of them

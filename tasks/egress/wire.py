"""DNS messages as bytes: a question, and the answer to it (RFC 1035 section 4, RFC 6891).

Written out for addresses, since a bulk look-up reads thousands a second: dnspython takes ten times as long. Records of
every other type are read by dnspython. Whatever does not fit is `Malformed`; nothing here trusts a length.
"""

import socket
from dataclasses import dataclass
from struct import Struct, error
from typing import Final

import dns.exception
import dns.message
import dns.rdatatype

from tasks.egress.names import NEGATIVE_TTL_S

NOERROR, FORMERR, NXDOMAIN, NOTIMP = 0, 1, 3, 4

LONGEST_CHAIN: Final = 16
"""Aliases that are followed, as dnspython does; a loop ends there."""

_HEADER: Final = Struct("!HHHHHH")
_FIXED: Final = Struct("!HHIH")
_IN: Final = 1
_CNAME: Final = 5
_RESPONSE, _TRUNCATED, _OPCODE, _RCODE = 0x8000, 0x0200, 0x7800, 0x000F
_WANTED: Final = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
"""After the identifier: recursion desired, one question, one additional record."""
_EDNS: Final = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
"""Answers up to 1232 bytes, which no path fragments (DNS flag day 2020)."""

_ADDRESSES: Final = {"A": (1, socket.AF_INET, 4), "AAAA": (28, socket.AF_INET6, 16)}
_POINTER: Final = 0xC0
_LONGEST_LABEL: Final = 63
_LONGEST_NAME: Final = 255
_SECONDS_LIMIT: Final = 2**31
"""RFC 2181 section 8: a TTL from here on is none."""


@dataclass(frozen=True)
class Found:
    """What name servers said, in presentation form; no records: the name does not exist or has none of that type."""

    records: tuple[str, ...]
    ttl_s: float


NOTHING: Final = Found((), NEGATIVE_TTL_S)


class Malformed(Exception):  # noqa: N818 - a finding about bytes; its catcher turns it into an error of ours
    """The bytes are no sound answer to the question."""


class Truncated(Exception):  # noqa: N818 - as above
    """The answer has to be fetched by TCP."""


class Refused(Exception):  # noqa: N818 - as above
    """The server did not answer the question; `rcode` says why."""

    def __init__(self, rcode: int) -> None:
        """Keep the code."""
        super().__init__(rcode)
        self.rcode = rcode


def question(name: str, kind: str) -> bytes:
    """Give the question section for a canonical name."""
    labels = b"".join(bytes((len(each),)) + each for each in name.encode("ascii").split(b"."))
    number = int(dns.rdatatype.RdataType[kind])
    return b"%s\x00%s\x00\x01" % (labels, number.to_bytes(2, "big"))


def query(identifier: int, asked: bytes) -> bytes:
    """Give the message that asks a question."""
    return identifier.to_bytes(2, "big") + _WANTED + asked + _EDNS


def is_answer(message: bytes, asked: bytes) -> bool:
    """Say whether a message repeats the question; what does not is not for us, whoever sent it."""
    return message[12 : 12 + len(asked)].lower() == asked.lower()


def read(message: bytes, asked: bytes, kind: str) -> Found:
    """Read the answer to a question.

    Raises:
        Malformed, Truncated, Refused: as they say.
    """
    try:
        _, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
        if not flags & _RESPONSE or flags & _OPCODE or questions != 1:
            raise Malformed
        if flags & _TRUNCATED:
            raise Truncated
        rcode = flags & _RCODE
        if rcode == NXDOMAIN:
            return NOTHING
        if rcode != NOERROR:
            raise Refused(rcode)
        if not answers:
            return NOTHING
        return _addresses(message, asked, kind, answers) if kind in _ADDRESSES else _others(message)
    except (error, IndexError, ValueError, OSError):
        raise Malformed from None


def _others(message: bytes) -> Found:
    """Read records of any type by dnspython."""
    try:
        chain = dns.message.from_wire(message).resolve_chaining()  # type: ignore[attr-defined]  # a query's message
    except (dns.exception.DNSException, AttributeError):
        raise Malformed from None
    if chain.answer is None:
        return NOTHING
    return Found(tuple(each.to_text() for each in chain.answer), float(chain.minimum_ttl))


def _addresses(message: bytes, asked: bytes, kind: str, answers: int) -> Found:
    number, family, length = _ADDRESSES[kind]
    aliases: dict[bytes, tuple[bytes, int]] = {}
    found: dict[bytes, list[str]] = {}
    ttls: dict[bytes, int] = {}
    at = 12 + len(asked)
    for _ in range(answers):
        owner, at = _name(message, at)
        sort, network, ttl, size = _FIXED.unpack_from(message, at)
        at += 10
        if at + size > len(message):
            raise Malformed
        ttl = ttl if ttl < _SECONDS_LIMIT else 0
        if network == _IN and sort == number:
            if size != length:
                raise Malformed
            found.setdefault(owner, []).append(socket.inet_ntop(family, message[at : at + size]))
            ttls[owner] = min(ttl, ttls.get(owner, ttl))
        elif network == _IN and sort == _CNAME:
            target, _ = _name(message, at)
            aliases[owner] = (target, ttl)
        at += size
    return _followed(asked[:-4].lower(), aliases, found, ttls)


def _followed(
    name: bytes, aliases: dict[bytes, tuple[bytes, int]], found: dict[bytes, list[str]], ttls: dict[bytes, int]
) -> Found:
    """Follow the aliases from the name that was asked; the shortest TTL on the way counts."""
    least = _SECONDS_LIMIT
    for _ in range(LONGEST_CHAIN):
        records = found.get(name)
        if records is not None:
            return Found(tuple(dict.fromkeys(records)), float(min(least, ttls[name])))
        if name not in aliases:
            return NOTHING
        name, ttl = aliases[name]
        least = min(least, ttl)
    raise Malformed


def _name(message: bytes, at: int) -> tuple[bytes, int]:
    """Give a name in lower case without compression, and where it ends. Pointers lead backwards only, so it ends."""
    parts: list[bytes] = []
    ends_at, lowest, size = -1, at, 0
    while True:
        length = message[at]
        if length >= _POINTER:
            target = (length & 0x3F) << 8 | message[at + 1]
            if target >= lowest:
                raise Malformed
            ends_at = at + 2 if ends_at < 0 else ends_at
            at = lowest = target
        elif length > _LONGEST_LABEL or (size := size + length + 1) > _LONGEST_NAME:
            raise Malformed
        else:
            parts.append(message[at : at + length + 1])
            at += length + 1
            if not length:
                return b"".join(parts).lower(), at if ends_at < 0 else ends_at

"""Host names and IP literals in their one canonical spelling."""

import re
import socket
from typing import Final

import dns.exception
import dns.name
import dns.reversename

NAME_LIMIT: Final = 253
"""RFC 1035 section 2.3.4: 255 octets on the wire."""

NEGATIVE_TTL_S: Final = 5.0
"""How long "no such name" is kept: longer hides a name that was just made."""

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# What inet_aton takes; it also ignores anything after a blank, which no name may hold.
_NUMERIC: Final = re.compile(r"[0-9a-fx.]+")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


def canonical(name: str) -> str | None:
    """Give the lower-case ASCII name without a trailing dot, or the address that an IP literal means.

    None stands for what is neither: it must not be asked of a name server, since another resolver might read it as an
    address.
    """
    text = name.lower().removesuffix(".")
    if not text.isascii():
        text = _ascii(text)
    address = literal(text)
    if address is not None:
        return address
    labels = text.split(".")
    sound = len(text) <= NAME_LIMIT and all(_LABEL.fullmatch(each) for each in labels)
    # A name that ends in a number is a misspelt address (WHATWG URL, "ends in a number checker").
    return text if sound and not _NUMBER.fullmatch(labels[-1]) else None


def literal(text: str) -> str | None:
    """Give the canonical address for any spelling that libc takes (`127.1`, `0x7f.1`, `2130706433`, `[::1]`)."""
    text = text.lower()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if ":" not in text:
            return None
    try:
        if ":" in text:
            address, percent, zone = text.partition("%")
            return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address)) + percent + zone
        return socket.inet_ntoa(socket.inet_aton(text)) if _NUMERIC.fullmatch(text) else None
    except OSError:
        return None


def is_address(name: str) -> bool:
    """Say whether a canonical name is an address."""
    return ":" in name or _NUMBER.fullmatch(name.rpartition(".")[2]) is not None


def is_localhost(name: str) -> bool:
    """Say whether a canonical name is `localhost` or below it (RFC 6761 section 6.3)."""
    return name == "localhost" or name.endswith(".localhost")


def reverse(address: str) -> str:
    """Give the name under which the names of an address are found (RFC 1035 section 3.5, RFC 3596)."""
    return dns.reversename.from_address(address.partition("%")[0]).to_text()


def family(address: str) -> str:
    """Give the record type that an address belongs to."""
    return "AAAA" if ":" in address else "A"


def _ascii(text: str) -> str:
    """Encode by IDNA 2008 with the mapping of UTS 46; what cannot be encoded becomes the empty name."""
    try:
        encoded = dns.name.from_unicode(text, origin=None, idna_codec=dns.name.IDNA_2008_UTS_46)
    except (dns.exception.DNSException, UnicodeError):
        return ""
    return encoded.to_text().lower().removesuffix(".")

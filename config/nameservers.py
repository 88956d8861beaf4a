"""How a DNS server is written: in settings, and in calls that name their own."""

import socket
from typing import Annotated, Final

from pydantic import AfterValidator

DNS_PORT: Final = 53
MOST_PORT: Final = 65535
PORT_DIGITS: Final = 5
FORM: Final = "neither address, address:port nor [address]:port"

Server = tuple[str, int]
"""A canonical address and a port."""


def server(text: str) -> Server | None:
    """Read `address`, `address:port` or `[address]:port`; None for anything else."""
    address, port = text.lower(), str(DNS_PORT)
    if address.startswith("["):
        address, closed, rest = address[1:].partition("]")
        if not closed or rest[:1] not in {"", ":"}:
            return None
        port = rest[1:] if rest else port
    elif address.count(":") == 1:
        address, _, port = address.partition(":")
    sound = _is_canonical(address) and port.isascii() and port.isdecimal() and len(port) <= PORT_DIGITS
    return (address, int(port)) if sound and 0 < int(port) <= MOST_PORT else None


def _is_canonical(address: str) -> bool:
    """Say whether it is an address in its one spelling; a zone may follow one of version 6."""
    address, percent, zone = address.partition("%")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if percent and (family == socket.AF_INET or not zone):
        return False
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, address)) == address
    except (OSError, ValueError):  # a zero byte or what is no ASCII
        return False


def _nameserver(text: str) -> str:
    if server(text) is None:
        raise ValueError(f"{text!r} is {FORM}")
    return text


Nameserver = Annotated[str, AfterValidator(_nameserver)]

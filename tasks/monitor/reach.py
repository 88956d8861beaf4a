"""Whether the pages of a worker can be reached from this machine, judged by what its heartbeat tells."""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from gaia.store.nodes import Node

ENDPOINT: Final = re.compile(r"https?://(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
"""No path, no query, no fragment, no user."""

HIGHEST_PORT: Final = 65535


def is_reachable(node: Node) -> bool:
    """Say whether a worker tells of an endpoint, and of one that this machine reaches."""
    parts = ENDPOINT.fullmatch(node.endpoint)
    if parts is None or int(parts[2] or 0) > HIGHEST_PORT:
        return False
    return not _is_local(parts[1].strip("[]")) or node.host == socket.gethostname()


def _is_local(host: str) -> bool:
    """Say whether a host is this machine for every machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Give the address that the system takes a host for without asking anybody; `127.1` and `2130706433`, too."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    address = ip_address(found[0][4][0])
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address

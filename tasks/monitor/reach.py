"""Whether the pages of a worker can be reached from this machine, judged by what its heartbeat tells."""

import re
import socket
from ipaddress import IPv6Address, ip_address
from typing import Final

from gaia.store.nodes import Node
from tasks.egress import names

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
    text = names.literal(host)
    if text is None:
        return names.is_localhost(host.lower().rstrip("."))
    address = ip_address(text)
    plain = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    return plain.is_loopback or plain.is_unspecified

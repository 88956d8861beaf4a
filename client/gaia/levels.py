"""The names that limits can be set for: of the cluster, a host, a key, a job, a pool."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

GLOBAL: Final = "global"
KINDS: Final = ("key", "job", "pool")
"""Names with a prefix: `key:...` an account, token or tenant, `job:...` a job, `pool:...` a pool of slots."""

LEVELS: Final = (GLOBAL, "host", *KINDS)

FORMS: Final = (
    f"must be {GLOBAL!r}, a host name or address in lower case without scheme and port, or "
    "key:<text>, job:<text>, pool:<text> of up to 200 visible characters"
)

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_REST: Final = re.compile(r"[!-~]{1,200}")
_HOST_LIMIT: Final = 253


def level_of(name: str) -> str:
    """Give which of `LEVELS` a name belongs to."""
    kind, colon, _ = name.partition(":")
    if name == GLOBAL or (colon and kind in KINDS):
        return kind
    return "host"


def is_name(name: str) -> bool:
    """Say whether a limit can be set for it."""
    kind, colon, rest = name.partition(":")
    if name == GLOBAL:
        return True
    if colon and kind in KINDS:
        return _REST.fullmatch(rest) is not None
    address = _address(name)
    if address is not None:
        return str(address) == name
    labels = name.split(".")
    return len(name) <= _HOST_LIMIT and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None

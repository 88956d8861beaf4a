"""Which addresses may be dialled: everything is judged by number, never by name."""

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from config.settings import split_cidr
from gaia.errors import EgressDenied

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Endpoint = tuple[str, int]
"""A canonical address or a lower-case host name, and a port."""

PRIVATE: Final = "private"

# IANA's special-purpose registries (RFC 6890) and what clouds put on top; `ipaddress.is_global` lets several of these
# through. The first match gives the reason, so the narrow ones stand first.
_DENIED_V4: Final = (
    ("169.254.169.254/32", "cloud metadata"),
    ("100.100.100.200/32", "cloud metadata"),
    ("168.63.129.16/32", "cloud metadata"),
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", PRIVATE),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", PRIVATE),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relays"),
    ("192.168.0.0/16", PRIVATE),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
)
_DENIED_V6: Final = (
    ("fd00:ec2::254/128", "cloud metadata"),
    ("fd20:ce::254/128", "cloud metadata"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::/96", "IPv4-compatible"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "NAT64"),
    ("100::/64", "discard"),
    ("100:0:0:1::/64", "discard"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmarking"),
    ("2001:db8::/32", "documentation"),
    ("2001::/23", "protocol assignments"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", PRIVATE),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
_TABLE_V4: Final = tuple((IPv4Network(network), reason) for network, reason in _DENIED_V4)
_TABLE_V6: Final = tuple((IPv6Network(network), reason) for network, reason in _DENIED_V6)

# RFC 4291 section 2.5.4: today's unicast; what lies outside is not in use, so nothing there is a public service.
_UNICAST_V6: Final = IPv6Network("2000::/3")
_LOOPBACK_V6: Final = IPv6Address("::1")
# Where the last 32 bits are an IPv4 address.
_V4_AT_THE_END: Final = tuple(
    network for network, reason in _TABLE_V6 if reason in {"IPv4-compatible", "IPv4-mapped", "IPv4-translated", "NAT64"}
)


class Judge:
    """Says whether an address may be dialled; default deny for everything that is not a public address.

    An entry of `allow_cidrs` opens a network (or one port of it). A name in `allow_hosts` may resolve to RFC 1918 and
    unique local addresses. Neither opens an endpoint in `forbidden`.
    """

    def __init__(
        self,
        allow_cidrs: Collection[str] = (),
        allow_hosts: Collection[str] = (),
        forbidden: Collection[Endpoint] = (),
    ) -> None:
        """Take the entries as settings have checked them; `forbidden` holds addresses in canonical spelling."""
        split = [split_cidr(each) for each in allow_cidrs]
        self._open = tuple((ip_network(network), port) for network, port in split)
        self._hosts = frozenset(_plain(each) for each in allow_hosts)
        self._forbidden = frozenset(forbidden)
        # A server bound to every address answers on each loopback one, and Linux takes 0.0.0.0 for loopback.
        self._forbidden_loopback = frozenset(port for host, port in forbidden if _is_loopback(host))

    def judge(self, host: str, address: str, port: int) -> None:
        """Let the address pass.

        Raises:
            EgressDenied: with the reason.
        """
        reason = self._objection(_plain(host), address, port)
        if reason is not None:
            raise EgressDenied(host, address, reason)

    def _objection(self, host: str, address: str, port: int) -> str | None:
        if "%" in address:
            return "scoped"
        try:
            parsed = ip_address(address)
        except ValueError:
            return "not an address"
        if (host, port) in self._forbidden:
            return "an endpoint of the cluster"
        # Whoever routes an embedding address sends the packet to the embedded one, so both have to be reachable.
        found = (self._refusal(host, each, port) for each in (parsed, *_embedded(parsed)))
        return next((reason for reason in found if reason is not None), None)

    def _refusal(self, host: str, address: Address, port: int) -> str | None:
        if self._is_forbidden(address, port):
            return "an endpoint of the cluster"
        if any(address in network and opened in (None, port) for network, opened in self._open):
            return None
        reason = classify(address)
        return None if reason == PRIVATE and host in self._hosts else reason

    def _is_forbidden(self, address: Address, port: int) -> bool:
        here = address.is_loopback or address.is_unspecified
        return (str(address), port) in self._forbidden or (here and port in self._forbidden_loopback)


def classify(address: Address) -> str | None:
    """Give why an address is no public one, None for a public one."""
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _TABLE_V4 if address in network), None)
    found = next((reason for network, reason in _TABLE_V6 if address in network), None)
    return found or (None if address in _UNICAST_V6 else "reserved")


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """Give the IPv4 addresses that an IPv6 address carries (RFC 4291, 6052, 3056, 4380)."""
    # Not `is_loopback`: since Python 3.13 that is true of ::ffff:127.0.0.1, which carries an address.
    if isinstance(address, IPv4Address) or address == _LOOPBACK_V6:
        return
    if any(address in network for network in _V4_AT_THE_END):
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")

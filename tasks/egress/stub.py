"""Questions to name servers, through dnspython's stub resolver."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dns.exception
import dns.nameserver
import dns.resolver

from config.settings import SettingsError
from gaia.errors import ResolverFailed
from tasks.egress import names

NEGATIVE_TTL_S: Final = 5.0
"""How long "no such name" is kept: longer hides a name that was just made."""

RESOLV_CONF: Final = Path("/etc/resolv.conf")


@dataclass(frozen=True)
class Found:
    """What name servers said; no addresses: the name does not exist or has no record of that type."""

    addresses: tuple[str, ...]
    ttl_s: float


class Stub:
    """Asks the given name servers, or those of resolv.conf (read once)."""

    def __init__(self, nameservers: Sequence[str] = (), resolv_conf: Path = RESOLV_CONF) -> None:
        """Check the name servers.

        Raises:
            SettingsError: if one is neither `address`, `address:port` nor `[address]:port`.
        """
        self._resolver = dns.resolver.Resolver(configure=False)
        if nameservers:
            self._resolver.nameservers = [_nameserver(each) for each in nameservers]
        elif resolv_conf.exists():
            self._resolver = _configured(resolv_conf) or self._resolver

    def ask(self, name: str, kind: str, timeout_s: float) -> Found:
        """Ask for the addresses of a canonical name; aliases are followed.

        Raises:
            TimeoutError: if no server answered in time.
            ResolverFailed: if all servers failed or refused.
        """
        if not self._resolver.nameservers:
            raise ResolverFailed(name, "no name server is configured")
        try:
            # A single label is completed by the search list, as services in containers expect; others are asked as
            # they stand, so that no foreign zone can answer for them.
            answer = self._resolver.resolve(name, kind, lifetime=timeout_s, search="." not in name)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.resolver.YXDOMAIN):
            return Found((), NEGATIVE_TTL_S)
        except dns.exception.Timeout:
            raise TimeoutError from None
        except dns.resolver.NoNameservers:
            raise ResolverFailed(name, "every name server failed or refused") from None
        except dns.exception.DNSException as failure:
            raise ResolverFailed(name, type(failure).__name__) from None
        return Found(tuple(str(each) for each in answer), float(answer.chaining_result.minimum_ttl))


def _configured(path: Path) -> dns.resolver.Resolver | None:
    try:
        return dns.resolver.Resolver(filename=str(path))
    except dns.resolver.NoResolverConfiguration:
        return None


def _nameserver(text: str) -> dns.nameserver.Do53Nameserver:
    address, port = text, "53"
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    if names.literal(address) != address.lower() or not port.isdecimal() or not 0 < int(port) <= 65535:  # noqa: PLR2004 - the largest port
        message = f"GAIA_NETWORK__NAMESERVERS: {text!r} is neither address, address:port nor [address]:port"
        raise SettingsError(message)
    return dns.nameserver.Do53Nameserver(address, int(port))

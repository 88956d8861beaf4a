"""Questions to name servers, through dnspython's stub resolver."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dns.exception
import dns.nameserver
import dns.resolver

from config.nameservers import DNS_PORT, FORM, Server, server
from config.settings import SettingsError
from gaia.errors import ResolverFailed
from tasks.egress.wire import NOTHING, Found

RESOLV_CONF: Final = Path("/etc/resolv.conf")


class Stub:
    """Asks the given name servers, or those of resolv.conf (read once)."""

    def __init__(self, nameservers: Sequence[str] = (), resolv_conf: Path = RESOLV_CONF) -> None:
        """Check the name servers.

        Raises:
            SettingsError: if one is neither `address`, `address:port` nor `[address]:port`.
        """
        self._resolver = dns.resolver.Resolver(configure=False)
        if nameservers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(*_checked(each)) for each in nameservers]
        elif resolv_conf.exists():
            self._resolver = _configured(resolv_conf) or self._resolver

    @classmethod
    def of(cls, servers: Sequence[Server]) -> "Stub":
        """Ask these servers."""
        return cls([f"[{address}]:{port}" for address, port in servers])

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers, in the order in which they are asked."""
        given = self._resolver.nameservers
        return tuple(
            (each.address, each.port) if isinstance(each, dns.nameserver.Do53Nameserver) else (str(each), DNS_PORT)
            for each in given
        )

    @property
    def view(self) -> str:
        """What answers depend on: the servers, and the search list that completes single labels."""
        return repr((self.servers, [str(each) for each in self._resolver.search], str(self._resolver.domain)))

    def ask(self, name: str, kind: str, timeout_s: float, *, tcp: bool = False) -> Found:
        """Ask for the records of a canonical name; aliases are followed.

        Raises:
            TimeoutError: if no server answered in time.
            ResolverFailed: if all servers failed or refused.
        """
        if not self._resolver.nameservers:
            raise ResolverFailed(name, "no name server is configured")
        try:
            # A single label is completed by the search list, as services in containers expect; others are asked as
            # they stand, so that no foreign zone can answer for them.
            answer = self._resolver.resolve(name, kind, tcp=tcp, lifetime=timeout_s, search="." not in name)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.resolver.YXDOMAIN):
            return NOTHING
        except dns.exception.Timeout:
            raise TimeoutError from None
        except dns.resolver.NoNameservers:
            raise ResolverFailed(name, "every name server failed or refused") from None
        except dns.exception.DNSException as failure:
            raise ResolverFailed(name, type(failure).__name__) from None
        return Found(tuple(each.to_text() for each in answer), float(answer.chaining_result.minimum_ttl))


def _configured(path: Path) -> dns.resolver.Resolver | None:
    try:
        return dns.resolver.Resolver(filename=str(path))
    except dns.resolver.NoResolverConfiguration:
        return None


def _checked(text: str) -> Server:
    found = server(text)
    if found is None:
        message = f"GAIA_NETWORK__NAMESERVERS: {text!r} is {FORM}"
        raise SettingsError(message)
    return found

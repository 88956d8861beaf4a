"""HTTP proxies, which calls name and settings know."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from gaia.contracts import api
from gaia.errors import EgressDenied, NameNotFound, ResolverFailed
from tasks.api.outgoing import Origin
from tasks.egress.gateway import Gateway


@dataclass(frozen=True, repr=False)
class Proxy:
    """Where a proxy listens, and the credentials it wants: "" or `user:password`."""

    name: str
    host: str
    port: int
    credentials: str = ""

    def headers(self) -> dict[str, str]:
        """Give the fields that it wants."""
        if not self.credentials:
            return {}
        return {"Proxy-Authorization": "Basic " + b64encode(self.credentials.encode()).decode()}


def read(given: Mapping[str, SecretStr]) -> dict[str, Proxy]:
    """Read the settings, which have checked the URLs."""
    found = {}
    for name, url in given.items():
        parts = urlsplit(url.get_secret_value())
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        credentials = f"{user}:{password}" if user or password else ""
        found[name] = Proxy(name, parts.hostname or "", parts.port or 0, credentials)
    return found


def chosen(proxies: Mapping[str, Proxy], call: api.Request) -> Proxy | None:
    """Give the proxy that a call names.

    Raises:
        InvalidCall: if settings know none of that name.
    """
    if call.proxy is None:
        return None
    found = proxies.get(call.proxy)
    if found is None:
        raise call.refuse("proxy", f"{call.proxy!r} is not among GAIA_API__PROXIES")
    return found


def judge_behind(gateway: Gateway, origin: Origin, timeout_s: float) -> None:
    """Refuse what would not be dialled from here either. A name that only the proxy can resolve is left to it.

    The proxy looks the name up again, so it has rules of its own to keep: see docs/api.md.

    Raises:
        EgressDenied: with the reason.
    """
    try:
        gateway.addresses(origin.host, origin.port, timeout_s=timeout_s)
    except EgressDenied:
        raise
    except (NameNotFound, ResolverFailed):
        return

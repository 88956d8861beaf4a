"""The cluster's own endpoints, which no call may dial whatever is allowed."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil

from config.settings import Settings
from gaia.errors import ResolverFailed
from tasks.egress.judge import Endpoint

REDIS_PORT = 6379


def endpoints(settings: Settings) -> frozenset[Endpoint]:
    """Give Redis, Flower, the monitor and the worker's own port, as names and as addresses.

    Raises:
        ResolverFailed: if a Redis host has no address now.
    """
    here = _own_addresses()
    found: set[Endpoint] = set()
    for host, port in (*_redis(settings.redis_url), *_redis(settings.result_url or "")):
        addresses = _addresses(host, port)
        found |= {(host.lower(), port), *((each, port) for each in addresses)}
        if addresses & here:
            # A server on this machine may listen on every address of it.
            found |= {(each, port) for each in here}
    ports = {settings.flower.port, settings.monitor.port, settings.worker.port} - {0}
    return frozenset(found | {(each, port) for each in here for port in ports})


def _redis(urls: str) -> Iterator[Endpoint]:
    """Give host and port of each URL; Celery takes several, joined by semicolons. A unix socket has neither."""
    for url in urls.split(";"):
        parts = urlsplit(url)
        if parts.hostname and "unix" not in parts.scheme and parts.scheme != "redis+socket":
            yield parts.hostname, parts.port or REDIS_PORT


def _addresses(host: str, port: int) -> set[str]:
    """Resolve as the Redis client does, by the system's own resolver."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as failure:
        raise ResolverFailed(host, failure.strerror or "no address") from None
    return {str(each[4][0]).partition("%")[0] for each in found}


def _own_addresses() -> set[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    interfaces = psutil.net_if_addrs().values()
    own = {each.address.partition("%")[0] for addresses in interfaces for each in addresses if each.family in families}
    return own | {"127.0.0.1", "::1"}

"""The Redis client of producers and workers, every time-out explicit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from gaia import redaction
from gaia.errors import Unreachable

CONNECT_TIMEOUT_S: Final = 3.0
REPLY_TIMEOUT_S: Final = 10.0
POOL_WAIT_S: Final = 10.0

_TIMEOUTS: Final[dict[str, Any]] = {
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "socket_timeout": REPLY_TIMEOUT_S,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


def connect(url: str, *, max_connections: int = 64) -> redis.Redis:
    """Make a client. It dials at the first command; a pooled connection that went stale is replaced once.

    Raises:
        Unreachable: if the URL is malformed.
    """
    with reaching(url):
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=POOL_WAIT_S,
            # Every command sent through here may be repeated without harm, so one retry is safe.
            retry=Retry(ConstantBackoff(0.05), 1),
            **_TIMEOUTS,
        )
        return redis.Redis(connection_pool=pool)


def connect_async(url: str) -> "redis.asyncio.Redis":
    """Make a client for one event loop. It never retries: its owner reconnects."""
    with reaching(url):
        return redis.asyncio.Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **_TIMEOUTS)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Translate the failures of Redis, and of a malformed URL, into `Unreachable`; the password stays out."""
    try:
        yield
    except (RedisError, OSError, ValueError) as failure:
        raise Unreachable(show_url(url), redaction.scrub(str(failure) or type(failure).__name__)) from None


def show_url(url: str) -> str:
    """Give a Redis URL without its user-info."""
    return str(redaction.redact(url, "url"))

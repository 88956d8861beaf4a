"""The Redis client of producers and workers, every time-out explicit."""

from typing import Any, Final
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from gaia import redaction
from gaia.errors import InvalidSetting, Unreachable

CONNECT_TIMEOUT_S: Final = 3.0
REPLY_TIMEOUT_S: Final = 10.0
POOL_WAIT_S: Final = 10.0

URL_FORM: Final = (
    "must be redis://host[:port][/number], or rediss://; a user and a percent-encoded password go before the host, "
    "as user:password@"
)
"""Without anything that redaction would take for a password."""

NEEDS_PASSWORD: Final = ("NOAUTH", "HELLO must be called", "Authentication required")
"""What servers say to a client that gives no password where one is needed; the last two are what redis-py leaves."""

_TIMEOUTS: Final[dict[str, Any]] = {
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "socket_timeout": REPLY_TIMEOUT_S,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


def connect(
    url: str,
    *,
    max_connections: int = 64,
    retries: int = 1,
    reply_timeout_s: float = REPLY_TIMEOUT_S,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
) -> redis.Redis:
    """Make a client. It dials at the first command.

    A command whose connection breaks is repeated `retries` times; 0 is for commands that must not run twice.

    Raises:
        InvalidSetting: if the URL is malformed.
    """
    require_url("the URL of Redis", url)
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=POOL_WAIT_S,
        retry=Retry(ConstantBackoff(0.05), retries),
        **{**_TIMEOUTS, "socket_timeout": reply_timeout_s, "socket_connect_timeout": connect_timeout_s},
    )
    return redis.Redis(connection_pool=pool)


def connect_async(url: str) -> "redis.asyncio.Redis":
    """Make a client for one event loop. It never retries: its owner reconnects."""
    require_url("the URL of Redis", url)
    return redis.asyncio.Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **_TIMEOUTS)


def require_url(setting: str, url: str) -> None:
    """Raise `InvalidSetting`, which shows nothing of the URL, unless it names a Redis."""
    if not is_url(url):
        raise InvalidSetting(setting, URL_FORM)


def is_url(url: str) -> bool:
    """Say whether a URL names a Redis, as `URL_FORM` says."""
    try:
        parts = urlsplit(url)
        number = parts.path.removeprefix("/")
        sound = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
        sound = sound and (not number or (number.isascii() and number.isdigit()))
        if sound:
            # A parameter that is no option of a connection shows only here.
            kind = redis.SSLConnection if parts.scheme == "rediss" else redis.Connection
            options = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]  # redis-py
            kind(**{name: value for name, value in options.items() if name != "connection_class"})
    except (ValueError, TypeError, AttributeError):
        return False
    return sound


class reaching:  # noqa: N801 - a context manager; as a generator it would cost every call more than it does
    """Translate the failures of Redis into `Unreachable`; the password stays out."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        """Take the URL of what is reached."""
        self._url = url

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, failure: BaseException | None, __: object) -> None:
        """Translate.

        Raises:
            Unreachable: in place of a failure of Redis or the network.
        """
        if isinstance(failure, (RedisError, OSError)):
            raise Unreachable(show_url(self._url), why(failure, self._url)) from None


def why(failure: BaseException, url: str) -> str:
    """Say why Redis did not answer; the password stays out."""
    text = str(failure)
    if text.startswith(NEEDS_PASSWORD):
        return "it wants a password, and the URL has none"
    return redaction.Scrubber(redaction.secrets_of_url(url))(text or type(failure).__name__)


def show_url(url: str) -> str:
    """Give a Redis URL without its user-info."""
    return str(redaction.redact(url, "url"))

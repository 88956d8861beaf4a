"""Errors of http.client, ssl, sockets and urllib3 in our words."""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3.exceptions

from gaia.errors import BadReply, ConnectFailed, GaiaError, ResolverFailed, TimedOut, TlsFailed
from tasks.api.bounds import Bounds

_BROKEN = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    http.client.RemoteDisconnected,
    http.client.IncompleteRead,
    urllib3.exceptions.IncompleteRead,
)
_REASONS: dict[type[BaseException], str] = {
    http.client.BadStatusLine: "it is no HTTP",
    http.client.LineTooLong: "a header line is too long",
    urllib3.exceptions.DecodeError: "the body does not fit its content encoding",
    urllib3.exceptions.InvalidHeader: "its header contradicts itself",
}


@contextmanager
def translated(host: str, bounds: Bounds) -> Iterator[None]:
    """Raise errors of ours alone; the end of the call (cancel, deadline, time) goes before what it broke."""
    try:
        yield
    except (ConnectFailed, ResolverFailed, TimedOut):
        bounds.left_s()
        raise
    except GaiaError:
        raise
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as failure:
        bounds.left_s()
        raise _ours(failure, host, bounds) from None


def _ours(failure: Exception, host: str, bounds: Bounds) -> GaiaError:
    # urllib3 wraps what it meets while reading.
    cause = failure.__cause__ if isinstance(failure, urllib3.exceptions.HTTPError) else failure
    if isinstance(cause, TimeoutError):
        return TimedOut(bounds.scope.operation, bounds.timeout_s)
    if isinstance(cause, _BROKEN):
        return ConnectFailed(host, "the server broke the connection off")
    if isinstance(cause, ssl.SSLError):
        return TlsFailed(host, _tls_reason(cause))
    if isinstance(cause, OSError):
        return ConnectFailed(host, cause.strerror or type(cause).__name__)
    reason = next((text for kind, text in _REASONS.items() if isinstance(failure, kind)), type(failure).__name__)
    return BadReply(host, reason)


def _tls_reason(failure: ssl.SSLError) -> str:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return failure.verify_message
    return (failure.reason or "protocol error").replace("_", " ").lower()

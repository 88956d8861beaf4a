"""HTTP requests, as a service."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.models import PreparedRequest
from urllib3 import HTTPResponse
from urllib3.util import Url

from config.settings import Api
from gaia.contracts import api
from gaia.errors import BadReply, BodyTooLarge, TooManyRedirects
from tasks.api import hops
from tasks.api.bounds import Bounds
from tasks.api.connections import Connection, Connections, Key
from tasks.api.faults import translated
from tasks.egress.gateway import Gateway
from tasks.scope import Scope

CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    location: str | None


class ApiService:
    """The operations of the `api` queue. Thread-safe; its connections are kept alive between calls."""

    def __init__(self, *, settings: Api, gateway: Gateway) -> None:
        """Dial nothing yet."""
        self._user_agent = settings.user_agent
        self._connections = Connections(gateway, settings.pool_connections, settings.ca_file)

    def request(self, call: api.Request, scope: Scope) -> api.Response:
        """Send a request, follow redirects, read the whole answer.

        With `max_redirects` 0 a redirect is the answer. Every wait is bounded by what is left of `timeout_s`; a cancel
        closes the socket at once, only a look-up of a name under way goes on to its end (a dial's bound at most).

        Raises:
            InvalidCall: if the call cannot be sent as HTTP.
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TlsFailed: if there is no connection.
            BadReply, BodyTooLarge, TooManyRedirects: for what the server sent.
            TimedOut, Cancelled, DeadlineExceeded: when the call's time is over.
        """
        started = scope.clock.monotonic()
        bounds = Bounds(scope, call.timeout_s)
        request = hops.first(call, self._user_agent)
        jar = RequestsCookieJar()
        with bounds.watched():
            for _ in range(call.max_redirects + 1):
                reply = self._exchange(request, call, bounds, jar)
                if reply.location is None:
                    elapsed_s = round(scope.clock.monotonic() - started, 6)
                    url = request.url or ""
                    return api.Response(reply.status, reply.headers, reply.body, url, elapsed_s, scope.attempts)
                request = hops.following(request, reply.status, reply.location)
        raise TooManyRedirects(hops.address(request).host or "", call.max_redirects)

    def close(self) -> None:
        """Close the idle connections; those in use are closed when their call ends."""
        self._connections.close()

    def _exchange(self, request: PreparedRequest, call: api.Request, bounds: Bounds, jar: RequestsCookieJar) -> _Reply:
        """Send one request and read its answer; the connection is kept only if nothing of the answer is left on it."""
        url = hops.address(request)
        host = url.host or ""
        connection = self._connections.take(Key(hops.origin(url), call.verify))
        with translated(host, bounds):
            try:
                response = _answer(connection, request, url, bounds, jar)
                reply = _read(response, call, host)
            except BaseException:
                bounds.hold(None)
                connection.close()
                raise
        bounds.hold(None)
        if response.closed:
            self._connections.give_back(connection)
        else:
            response.close()
            connection.close()
        return reply


def _answer(
    connection: Connection, request: PreparedRequest, url: Url, bounds: Bounds, jar: RequestsCookieJar
) -> HTTPResponse:
    connection.serve(bounds)
    body = request.body if isinstance(request.body, str | bytes) else None
    fields = hops.headers(request, jar)
    with suppress(BrokenPipeError):  # a server may answer and close before it has the whole body
        connection.request(request.method or "GET", url.request_uri, body, fields, preload_content=False)
    response = connection.getresponse()
    extract_cookies_to_jar(jar, request, response)  # type: ignore[no-untyped-call]  # of requests, without types
    return response


def _read(response: HTTPResponse, call: api.Request, host: str) -> _Reply:
    if response.status < 200:  # noqa: PLR2004 - informational answers, RFC 9110 section 15.2
        # The real answer may follow it on the wire, out of step with the next request.
        raise BadReply(host, f"an exchange cannot end with status {response.status}")
    location = response.headers.get("location") if response.status in hops.REDIRECTS and call.max_redirects else None
    if location is not None:
        # A short body is read away so that the connection can be kept.
        response.read(CHUNK_BYTES, decode_content=False)
        return _Reply(response.status, {}, b"", location)
    return _Reply(response.status, _fields(response), _body(response, call.max_body_bytes, host), None)


def _fields(response: HTTPResponse) -> dict[str, str]:
    joints = {"set-cookie": "\n"}
    names = {name.lower(): response.headers.getlist(name) for name in response.headers}
    return {name: joints.get(name, ", ").join(values) for name, values in names.items()}


def _body(response: HTTPResponse, limit_bytes: int, host: str) -> bytes:
    """Read to the end, counting what the decoding gives: a small compressed body can hold a huge one."""
    chunks: list[bytes] = []
    room = limit_bytes
    while chunk := response.read(min(CHUNK_BYTES, room + 1), decode_content=True):
        room -= len(chunk)
        if room < 0:
            raise BodyTooLarge(host, limit_bytes)
        chunks.append(chunk)
    return b"".join(chunks)

"""One exchange at a time, on requests' and urllib3's ground: for single calls and downloads."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from urllib3 import HTTPResponse

from gaia.contracts.api import IDEMPOTENT
from gaia.errors import BadReply, BodyTooLarge, ConnectFailed
from tasks.api.bounds import Bounds
from tasks.api.connections import Connection, Connections, Key
from tasks.api.faults import translated
from tasks.api.incoming import MOST_FIELDS, PACKED_SPARE_BYTES, Answer
from tasks.api.outgoing import Outgoing
from tasks.api.proxies import Proxy

CHUNK_BYTES: Final = 64 * 1024


@dataclass
class Stream:
    """An answer whose body is yet to be read."""

    answer: Answer
    response: HTTPResponse
    host: str
    bounds: Bounds

    def read(self, size_bytes: int) -> bytes:
        """Give up to so many bytes of the body as it comes over the wire, none at its end."""
        with translated(self.host, self.bounds):
            return self.response.read(size_bytes, decode_content=False)


class Single:
    """Thread-safe; connections are kept alive between exchanges."""

    def __init__(self, connections: Connections) -> None:
        """Use these connections."""
        self._connections = connections

    def exchange(
        self, sent: Outgoing, fields: dict[str, str], bounds: Bounds, route: tuple[bool, Proxy | None], room: "Room"
    ) -> Answer:
        """Send a request and read its answer, the body as far as there is room for it.

        Raises:
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TlsFailed: if there is no connection.
            BadReply, BodyTooLarge: for what the server sent.
            PoolExhausted: if all sessions of the origin are busy.
            TimedOut, Cancelled, DeadlineExceeded: when the call's time is over.
        """
        with self.streaming(sent, fields, bounds, route) as stream:
            return Answer(stream.answer.status, stream.answer.fields, _body(stream, room))

    @contextmanager
    def streaming(
        self, sent: Outgoing, fields: dict[str, str], bounds: Bounds, route: tuple[bool, Proxy | None]
    ) -> Iterator[Stream]:
        """Send a request, and give its answer inside the block; the connection is kept if the body was read whole.

        Raises:
            As `exchange`.
        """
        verify, proxy = route
        key = Key(sent.address.origin, verify, proxy)
        with self._connections.using(key.origin, bounds):
            connection, response = self._answered(key, sent, fields, bounds)
            try:
                with translated(sent.host, bounds):
                    answer = _head(response, sent.host)
                yield Stream(answer, response, sent.host, bounds)
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

    def _answered(
        self, key: Key, sent: Outgoing, fields: dict[str, str], bounds: Bounds
    ) -> tuple[Connection, HTTPResponse]:
        connection = self._connections.take(key)
        try:
            return connection, _send(connection, sent, fields, bounds)
        except ConnectFailed:
            # The server may have closed a kept-alive connection as we took it (RFC 9112 section 9.3.1).
            if not connection.reused or sent.method not in IDEMPOTENT:
                raise
        connection = self._connections.take(key, fresh=True)
        return connection, _send(connection, sent, fields, bounds)


@dataclass(frozen=True)
class Room:
    """How much of a body is read: all up to `limit_bytes`, or of a redirect that is followed, just what is at hand."""

    limit_bytes: int
    follows: bool


def _send(connection: Connection, sent: Outgoing, fields: dict[str, str], bounds: Bounds) -> HTTPResponse:
    proxy, target = connection.key.proxy, sent.address.target
    if proxy is not None and connection.key.origin.scheme == "http":
        target, fields = sent.address.url, {**fields, **proxy.headers()}
        fields.setdefault("Host", sent.address.authority)
    try:
        with translated(sent.host, bounds):
            connection.serve(bounds)
            with suppress(BrokenPipeError):  # a server may answer and close before it has the whole body
                connection.request(sent.method, target, sent.body, fields, preload_content=False)
            return connection.getresponse()
    except BaseException:
        bounds.hold(None)
        connection.close()
        raise


def _head(response: HTTPResponse, host: str) -> Answer:
    if response.status < 200:  # noqa: PLR2004 - informational answers, RFC 9110 section 15.2
        # The real answer may follow it on the wire, out of step with the next request.
        raise BadReply(host, f"an exchange cannot end with status {response.status}")
    fields = list(response.headers.iteritems())
    if len(fields) > MOST_FIELDS:
        raise BadReply(host, f"it has more than {MOST_FIELDS} header fields")
    return Answer(response.status, fields, b"")


def _body(stream: Stream, room: Room) -> bytes:
    if room.follows and stream.answer.location() is not None:
        # A short body is read away so that the connection can be kept.
        stream.read(CHUNK_BYTES)
        return b""
    spare = PACKED_SPARE_BYTES if stream.answer.value("content-encoding") else 0
    left = room.limit_bytes + spare
    chunks: list[bytes] = []
    while chunk := stream.read(min(CHUNK_BYTES, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise BodyTooLarge(stream.host, room.limit_bytes)
        chunks.append(chunk)
    return b"".join(chunks)

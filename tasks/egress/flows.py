"""One direction of a connection through a proxy."""

import selectors
import socket
from contextlib import suppress
from typing import Final

from tasks.egress import heads
from tasks.egress.heads import Malformed

CHUNK_BYTES: Final = 64 * 1024


class Flow:
    """One direction of a connection: it waits either to read or to write what it read, never both."""

    def __init__(self, source: socket.socket, sink: socket.socket, pending: bytes = b"") -> None:
        """Begin with what is pending for the sink. Both ends do not block."""
        self._source = source
        self._sink = sink
        self._pending = pending
        self._open = True

    def waits_for(self) -> tuple[socket.socket, int] | None:
        """Give the socket and the event, None at the end."""
        if self._pending:
            return self._sink, selectors.EVENT_WRITE
        return (self._source, selectors.EVENT_READ) if self._open else None

    def step(self, most_bytes: int = CHUNK_BYTES) -> int:
        """Read at most so many bytes, or write, once; give how many were read.

        Raises:
            OSError: if an end broke; `BlockingIOError` if there was nothing to do.
            Malformed: if what came must not pass.
        """
        if self._pending:
            self._pending = self._pending[self._sink.send(self._pending) :]
            return 0
        chunk = self._source.recv(most_bytes)
        self._pending = self.passed(chunk)
        if not chunk:
            self._open = False
            with suppress(OSError):
                self._sink.shutdown(socket.SHUT_WR)
        return len(chunk)

    def passed(self, chunk: bytes) -> bytes:
        """Give what travels on of what came."""
        return chunk


class Response(Flow):
    """A server's answer: its head says `Connection: close`, whatever the server said, so that none is reused."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        """Wait for the head."""
        super().__init__(source, sink)
        self._head: bytes | None = b""

    def passed(self, chunk: bytes) -> bytes:
        """Rewrite the head."""
        if self._head is None:
            return chunk
        self._head += chunk
        done = b""
        while self._head is not None and b"\r\n\r\n" in self._head:
            head, _, rest = self._head.partition(b"\r\n\r\n")
            line, headers = heads.parsed(head)
            if not line.startswith("HTTP/1."):
                raise Malformed
            kept = [each for each in heads.end_to_end(headers) if each[0].lower() != heads.MARK]
            done += heads.written(line, [*kept, ("Connection", "close")])
            # After an interim answer (RFC 9110, 15.2) comes another head.
            interim = line.startswith(("HTTP/1.1 1", "HTTP/1.0 1"))
            done, self._head = (done, rest) if interim else (done + rest, None)
        if self._head is not None and (len(self._head) > heads.MAX_HEAD_BYTES or not chunk):
            raise Malformed
        return done


class Ending(Flow):
    """A last word."""

    def __init__(self, sink: socket.socket, pending: bytes) -> None:
        """Send it, and end."""
        super().__init__(sink, sink, pending)
        self._open = False

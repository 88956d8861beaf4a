"""Downloads: what a GET brings, as a file that is read a chunk at a time and goes on after a break."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from gaia.contracts import api
from gaia.errors import BadReply, BodyTooLarge, ConnectFailed, GaiaError, TimedOut
from tasks.api.incoming import Answer
from tasks.api.outgoing import Outgoing
from tasks.api.single import Stream
from tasks.scope import Scope

CHUNK_BYTES: Final = 64 * 1024
PARTIAL: Final = 206

_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Opened = tuple[Outgoing, Stream]
Open = Callable[[dict[str, str], ExitStack], Opened]
Pace = Callable[[int], int]


@dataclass
class Body:
    """A body under way: `read` for whoever stores it. Not thread-safe."""

    call: api.Download
    scope: Scope
    open: Open
    pace: Pace
    resumed_by: Callable[[], None]
    size_bytes: int = 0
    resumed: int = 0
    total_bytes: int | None = None
    answer: Answer | None = None
    url: str = ""
    _stack: ExitStack = field(default_factory=ExitStack)
    _stream: Stream | None = None

    @contextmanager
    def opened(self) -> Iterator["Body"]:
        """Ask for the body, and close the connection behind the block.

        Raises:
            As `Single.streaming`, and what `open` makes of a status.
        """
        with self._stack:
            self._begin({})
            yield self

    def read(self, size_bytes: int = CHUNK_BYTES) -> bytes:
        """Give the next bytes, none at the end.

        Raises:
            BodyTooLarge: over `max_bytes`.
            ConnectFailed, TimedOut: it broke off, and cannot be taken up.
            Cancelled, DeadlineExceeded: of the call.
        """
        wanted = min(size_bytes if size_bytes > 0 else CHUNK_BYTES, CHUNK_BYTES)
        while True:
            self.scope.check()
            try:
                chunk = self._next(wanted)
            except (ConnectFailed, TimedOut) as broken:
                self._resume(broken)
                continue
            self.size_bytes += len(chunk)
            if self.size_bytes > self.call.max_bytes:
                raise BodyTooLarge(self._host(), self.call.max_bytes)
            self.scope.progress(self.size_bytes, self.total_bytes)
            return chunk

    def _next(self, wanted: int) -> bytes:
        assert self._stream is not None  # noqa: S101 - opened
        allowed = self.pace(wanted)
        self._stream.bounds.renew()
        chunk = self._stream.read(allowed)
        if not chunk and self.total_bytes is not None and self.size_bytes < self.total_bytes:
            raise ConnectFailed(self._host(), "the server broke the connection off")
        return chunk

    def _begin(self, fields: dict[str, str]) -> None:
        sent, self._stream = self.open(fields, self._stack)
        answer = self._stream.answer
        if fields:
            self._check_part(answer)
            return
        self.answer, self.url = answer, sent.address.url
        length = answer.value("content-length")
        # A coding that was not asked for is kept as it is; the length is that of what is stored.
        self.total_bytes = int(length) if length is not None and length.isdigit() else None
        if self.total_bytes is not None and self.total_bytes > self.call.max_bytes:
            raise BodyTooLarge(sent.host, self.call.max_bytes)

    def _resume(self, broken: GaiaError) -> None:
        """Ask for the rest, if the server says how to tell that it is of the same body (RFC 9110 section 13.1.5)."""
        answer = self.answer
        assert answer is not None  # noqa: S101 - opened
        etag, modified = answer.value("etag"), answer.value("last-modified")
        proof = etag if etag and not etag.startswith("W/") else modified
        if proof is None or self.resumed + 1 >= self.call.retry.attempts or not self.size_bytes:
            raise broken
        self.resumed += 1
        self.resumed_by()
        self._stack.close()
        self.scope.cancelled.wait(self.scope.bound_s(self.call.retries().pause_s(self.resumed)))
        self.scope.check()
        try:
            self._begin({"Range": f"bytes={self.size_bytes}-", "If-Range": proof})
        except (ConnectFailed, TimedOut) as again:
            self._resume(again)

    def _check_part(self, answer: Answer) -> None:
        if answer.status != PARTIAL:
            raise ConnectFailed(self._host(), "it broke off, and the server cannot go on where it did")
        found = _RANGE.fullmatch((answer.value("content-range") or "").strip())
        total = found.group(3) if found else "*"
        if found is None or int(found.group(1)) != self.size_bytes:
            raise BadReply(self._host(), "the part that it sent is not the one asked for")
        if self.total_bytes is not None and total not in {"*", str(self.total_bytes)}:
            raise BadReply(self._host(), "the part that it sent is of another body")

    def _host(self) -> str:
        return self._stream.host if self._stream else ""

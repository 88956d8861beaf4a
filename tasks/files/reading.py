"""Reading files beneath the roots: whole, a range, the end, a checksum."""

import io
import os
from typing import Any, Final

from gaia.contracts import files
from gaia.errors import BodyTooLarge
from tasks.files import tags
from tasks.roots.roots import Roots, ours, translated
from tasks.scope import Scope

CHUNK_BYTES: Final = 1 << 20
SMALL_BYTES: Final = 64 * 1024
POLL_S: Final = 0.1
"""How often a file is looked at that has nothing new: the file systems tell of a change are the local ones."""


class Bounded(io.FileIO):
    """A descriptor, which stays the caller's, to be read within a call's bounds: they are asked for with each part."""

    def __init__(self, fd: int, scope: Scope) -> None:
        """Read on from where it is."""
        super().__init__(fd, closefd=False)
        self._scope = scope

    def readinto(self, buffer: Any, /) -> int | None:
        """Read a part.

        Raises:
            Cancelled, DeadlineExceeded
        """
        self._scope.check()
        return super().readinto(buffer)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a part, or the rest.

        Raises:
            Cancelled, DeadlineExceeded
        """
        self._scope.check()
        return super().read(-1 if size is None else size) or b""


class Reader:
    """Reads files. It owns nothing."""

    def __init__(self, roots: Roots) -> None:
        """Take the roots."""
        self._roots = roots

    def read(self, call: files.Read, scope: Scope) -> files.Content:
        """Read a whole file."""
        fd = self._roots.open_to_read(call.path)
        try:
            body = _content(fd, call, scope)
        except OSError as failure:
            raise ours(call.path, failure) from None
        finally:
            os.close(fd)
        return files.Content(call.path, body, len(body), tags.etag(body))

    def read_range(self, call: files.ReadRange, scope: Scope) -> files.Chunk:
        """Read a range of a file."""
        with self._roots.reading(call.path) as fd, translated(call.path):
            size = os.fstat(fd).st_size
            body = read_at(fd, call.offset_bytes, call.size_bytes, scope)
        return _chunk(call.path, body, call.offset_bytes, max(size, call.offset_bytes + len(body)))

    def tail(self, call: files.Tail, scope: Scope) -> files.Chunk:
        """Read the end of a file, or what was added to it, for which it waits if it is told to."""
        ends_at = scope.clock.monotonic() + call.wait_s
        while True:
            # Opened anew each time: a file that was rotated is another one.
            with self._roots.reading(call.path) as fd, translated(call.path):
                found = _tail(fd, call, scope)
            left_s = ends_at - scope.clock.monotonic()
            if found.body or found.rotated or left_s <= 0:
                return found
            scope.cancelled.wait(scope.bound_s(min(POLL_S, left_s)))

    def checksum(self, call: files.Checksum, scope: Scope) -> files.Digest:
        """Compute a checksum."""
        with self._roots.reading(call.path) as fd, translated(call.path):
            found = tags.of_descriptor(fd, scope.check, call.algorithm)
            size = os.lseek(fd, 0, os.SEEK_CUR)
        return files.Digest(path=call.path, algorithm=call.algorithm, hexdigest=found, size_bytes=size)


def read_at(fd: int, offset: int, size: int, scope: Scope) -> bytes:
    """Read up to `size` bytes at an offset; fewer at the end of the file."""
    chunks = []
    while size > 0:
        scope.check()
        chunk = os.pread(fd, min(size, CHUNK_BYTES), offset)
        if not chunk:
            break
        chunks.append(chunk)
        offset, size = offset + len(chunk), size - len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _content(fd: int, call: files.Read, scope: Scope) -> bytes:
    # Most files are small: one read of a little more than they have shows that they end.
    body = os.read(fd, min(SMALL_BYTES, call.max_bytes + 1))
    if len(body) > call.max_bytes:
        raise BodyTooLarge(call.path, call.max_bytes)
    size = os.fstat(fd).st_size
    if len(body) == size and body:
        return body
    if size > call.max_bytes:
        raise BodyTooLarge(call.path, call.max_bytes)
    # The file may grow while it is read, and those of /proc have no size at all: read until the end.
    chunks, total = [body], len(body)
    while chunk := os.read(fd, min(max(size - total, 0) + 4096, CHUNK_BYTES)):
        scope.check()
        chunks.append(chunk)
        total += len(chunk)
        if total > call.max_bytes:
            raise BodyTooLarge(call.path, call.max_bytes)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _tail(fd: int, call: files.Tail, scope: Scope) -> files.Chunk:
    size = os.fstat(fd).st_size
    if call.from_bytes is None:
        start = _start_of_lines(fd, size, call, scope)
        return _chunk(call.path, read_at(fd, start, size - start, scope), start, size)
    rotated = call.from_bytes > size
    start = 0 if rotated else call.from_bytes
    return _chunk(call.path, read_at(fd, start, call.max_bytes, scope), start, size, rotated=rotated)


def _start_of_lines(fd: int, size: int, call: files.Tail, scope: Scope) -> int:
    """Give where the last lines begin, looking back no further than the bound of bytes."""
    least = max(0, size - call.max_bytes)
    if call.lines == 0:
        return size
    # A line break at the very end ends the last line and begins none.
    end, left = size, call.lines
    while end > least:
        start = max(least, end - SMALL_BYTES)
        chunk = read_at(fd, start, end - start, scope)
        at = len(chunk) - 1 if end == size and chunk.endswith(b"\n") else len(chunk)
        while (at := chunk.rfind(b"\n", 0, at)) != -1:
            left -= 1
            if left == 0:
                return start + at + 1
        end = start
    return least


def _chunk(path: str, body: bytes, offset: int, size: int, *, rotated: bool = False) -> files.Chunk:
    return files.Chunk(
        path=path,
        body=body,
        offset_bytes=offset,
        next_bytes=offset + len(body),
        file_bytes=max(size, offset + len(body)) if body else size,
        rotated=rotated,
    )

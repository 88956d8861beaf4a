"""What the parsers share: pages, their cursors, and a garbage collector that rests during a large parse.

A cursor says where the next page begins and which file it was of:

    b4711@d00d1e5.18b2f3a    at a byte       i1000@...    at the number of an item    then size and mtime in nanoseconds
"""

import gc
import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, NamedTuple

from gaia.contracts import files
from gaia.errors import BadDocument, BodyTooLarge, InvalidCall, PreconditionFailed
from tasks.files.reading import Bounded
from tasks.scope import Scope

SMALL_BYTES: Final = 8 * 1024 * 1024
"""A document up to this size is parsed as a whole, and no value, item or page may come from more bytes."""

BUFFER_BYTES: Final = 1 << 20
QUIET_BYTES: Final = 1 << 20
"""The collector rests during the parse of what is larger: it would look at every new object again and again."""

CHECK_EVERY: Final = 256

_CURSOR: Final = re.compile(r"([bi])(\d{1,19})@([0-9a-f]{1,16})\.(-?[0-9a-f]{1,16})", re.ASCII)


class Place(NamedTuple):
    """Where a page begins: at a byte, or at the number of an item."""

    kind: str
    position: int


START: Final = Place("", 0)


class Document:
    """A file that is parsed, open at its start; the descriptor stays the caller's."""

    def __init__(self, fd: int, path: str, scope: Scope) -> None:
        """Look at it."""
        found = os.fstat(fd)
        self.fd = fd
        self.path = path
        self.scope = scope
        self.size_bytes = found.st_size
        self._version = f"{found.st_size:x}.{found.st_mtime_ns:x}"

    @property
    def small(self) -> bool:
        """Say whether it is parsed as a whole."""
        return self.size_bytes <= SMALL_BYTES

    def reader(self, at: int = 0) -> BinaryIO:
        """Give a file to read it from a byte on."""
        os.lseek(self.fd, at, os.SEEK_SET)
        return io.BufferedReader(Bounded(self.fd, self.scope), BUFFER_BYTES)

    def whole(self) -> bytes:
        """Read a small one.

        Raises:
            BodyTooLarge: if it has grown meanwhile.
        """
        body = self.reader().read(SMALL_BYTES + 1)
        if len(body) > SMALL_BYTES:
            raise BodyTooLarge(self.path, SMALL_BYTES)
        return body

    def refuse(self, reason: str) -> BadDocument:
        """Make the error for a document that cannot be parsed."""
        return BadDocument(self.path, reason[:300])

    def too_large(self) -> BodyTooLarge:
        """Make the error for a value that is over the bound."""
        return BodyTooLarge(self.path, SMALL_BYTES)

    def cursor(self, place: Place) -> str:
        """Write a cursor."""
        return f"{place.kind}{place.position}@{self._version}"

    def place(self, operation: str, cursor: str | None, *, growing: bool = False) -> Place:
        """Read a cursor; a file that is `growing` may have changed behind it.

        Raises:
            InvalidCall: if it is none.
            PreconditionFailed: if it is of another file, or of this one before it changed.
        """
        if cursor is None:
            return START
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise InvalidCall(operation, "cursor", "must be what the page before gave")
        place = Place(found[1], int(found[2]))
        same = self.size_bytes >= int(found[3], 16) if growing else f"{found[3]}.{found[4]}" == self._version
        if not same or (place.kind == "b" and place.position > self.size_bytes):
            raise PreconditionFailed(self.path, "the file that the cursor is of", "one that has changed")
        return place


class Page:
    """The items of one page: at most `limit`, and made of at most 8 MiB, but one at least."""

    def __init__(self, document: Document, limit: int) -> None:
        """Start with none."""
        self._document = document
        self._limit = limit
        self._left_bytes = SMALL_BYTES
        self.items: list[Any] = []

    def fits(self, size_bytes: int) -> bool:
        """Say whether another item of that size may come."""
        if len(self.items) % CHECK_EVERY == 0:
            self._document.scope.check()
        return len(self.items) < self._limit and (size_bytes <= self._left_bytes or not self.items)

    def add(self, item: Any, size_bytes: int) -> None:
        """Take an item in."""
        self.items.append(item)
        self._left_bytes -= size_bytes

    def parsed(self, after: Place | None) -> files.Parsed:
        """Give the page; `after` is where the next begins."""
        cursor = None if after is None else self._document.cursor(after)
        return files.Parsed(path=self._document.path, items=tuple(self.items), cursor=cursor)


_resting = 0
_resting_lock = threading.Lock()
_was_enabled = True


@contextmanager
def collector_resting(size_bytes: int) -> Iterator[None]:
    """Keep this process's garbage collector from running until the last such block ends, if there is much to parse.

    What was dropped in cycles meanwhile stays until then; parsers make none.
    """
    global _resting, _was_enabled  # noqa: PLW0603 - the collector is the process's own
    if size_bytes < QUIET_BYTES:
        yield
        return
    with _resting_lock:
        if _resting == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _resting += 1
    try:
        yield
    finally:
        with _resting_lock:
            _resting -= 1
            if _resting == 0 and _was_enabled:
                gc.enable()

"""Files of lines: one JSON value a line, or rows of text. A page begins at a byte, so it costs what it holds."""

import csv
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from gaia.contracts import files
from gaia.errors import InvalidCall
from tasks.files.json_documents import loads
from tasks.files.pages import SMALL_BYTES, Document, Page, Place, collector_resting
from tasks.files.queries import Query, one

MARK: Final = "\ufeff"

csv.field_size_limit(SMALL_BYTES)


class _Lines:
    """The lines of a document from a byte on.

    `position` is the byte behind the last one given, `begun_at` the one at which the row of several lines begins.
    """

    def __init__(self, document: Document, at: int) -> None:
        self._document = document
        self._reader: BinaryIO = document.reader(at)
        self.position = at
        self.begun_at = at

    def next(self) -> bytes:
        """Give a line with its end, b"" behind the last.

        Raises:
            BodyTooLarge: over 8 MiB.
        """
        line = self._reader.readline(SMALL_BYTES + 1)
        if len(line) > SMALL_BYTES:
            raise self._document.too_large()
        self.position += len(line)
        return line

    def text(self) -> Iterator[str]:
        """Give the lines that are left as text.

        Raises:
            BadDocument: if one is no UTF-8.
            BodyTooLarge: if the row is over 8 MiB.
        """
        while line := self.next():
            if self.position - self.begun_at > SMALL_BYTES:
                raise self._document.too_large()
            try:
                yield line.decode()
            except UnicodeDecodeError as failure:
                raise self._document.refuse(f"is no UTF-8 before byte {self.position}: {failure.reason}") from None


def parse_jsonl(call: files.ParseJsonl, document: Document) -> files.Parsed:
    """Give a page of what the lines hold; blank ones are passed over.

    Raises:
        BadDocument, BodyTooLarge, InvalidCall, PreconditionFailed, Cancelled, DeadlineExceeded
    """
    query = Query.parse(call.query)
    place = document.place(call.OPERATION, call.cursor, growing=True)
    lines, page = _Lines(document, place.position), Page(document, call.limit)
    with collector_resting(document.size_bytes):
        while True:
            before = lines.position
            line = lines.next()
            if not line:
                return page.parsed(None)
            if before == 0:
                line = line.removeprefix(MARK.encode())
            if not line.strip():
                continue
            if not page.fits(len(line)):
                return page.parsed(Place("b", before))
            page.add(_of_line(line, before, query, document), len(line))


def _of_line(line: bytes, at: int, query: Query, document: Document) -> Any:
    try:
        value = loads(line, document)
        return value if not query.tokens else one(query, value, document.path)
    except Exception as failure:
        reason = getattr(failure, "reason", None)
        if reason is None:
            raise
        raise document.refuse(f"the line at byte {at} {reason}") from None


def parse_csv(call: files.ParseCsv, document: Document) -> files.Parsed:
    """Give a page of rows; empty ones are passed over.

    Raises:
        BadDocument, BodyTooLarge, InvalidCall, PreconditionFailed, Cancelled, DeadlineExceeded
    """
    place = document.place(call.OPERATION, call.cursor, growing=True)
    page = Page(document, call.limit)
    try:
        head = _Lines(document, 0)
        names = next(_rows(call, head), []) if call.first_row_names else []
        chosen = _chosen(call, names)
        lines = head
        lines.begun_at = lines.position
        if place.kind:
            lines = _Lines(document, place.position)
        before = lines.position
        for row in _rows(call, lines):
            size = lines.position - before
            if row:
                if not page.fits(size):
                    return page.parsed(Place("b", before))
                page.add(_item(row, names, chosen, document, before), size)
            before = lines.begun_at = lines.position
    except csv.Error as failure:
        raise document.refuse(f"is no CSV: {failure}") from None
    return page.parsed(None)


def _rows(call: files.ParseCsv, lines: _Lines) -> Iterator[list[str]]:
    """Give rows one at a time, each of the lines that it needs and no more."""
    begins = lines.position == 0
    texts = lines.text()
    if begins:
        first = next(texts, "").removeprefix(MARK)
        texts = _before(first, texts)
    return csv.reader(texts, delimiter=call.delimiter, strict=True)


def _before(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _chosen(call: files.ParseCsv, names: list[str]) -> list[int] | None:
    """Give the numbers of the columns asked for, None for all."""
    if not call.columns:
        return None
    for each in call.columns:
        if each not in names:
            raise InvalidCall(call.OPERATION, "columns", f"must be of those in the file: {each[:100]!r} is not")
    return [names.index(each) for each in call.columns]


def _item(row: list[str], names: list[str], chosen: list[int] | None, document: Document, at: int) -> Any:
    if not names:
        return row
    if len(row) != len(names):
        raise document.refuse(f"the row at byte {at} has {len(row)} values for {len(names)} columns")
    if chosen is None:
        return dict(zip(names, row, strict=True))
    return {names[each]: row[each] for each in chosen}

"""JSON documents of any size.

Small ones are parsed as a whole by msgspec. Of a large array the elements are decoded one after the other from a window
of the file, so that a page costs what it holds, wherever it begins. In any other large document the parser's events
(ijson) are followed to what the query names; a later page then reads what is before it again.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any, BinaryIO, Final, NoReturn

import ijson
import msgspec
from ijson.common import ObjectBuilder

from gaia.contracts import files
from tasks.files.pages import BUFFER_BYTES, SMALL_BYTES, Document, Page, Place, collector_resting
from tasks.files.queries import EACH, Query, missing, one

DEFAULT_LIMIT: Final = 1000
EVENT_BYTES: Final = 16
"""What an event counts for in the size of a value, beside its text."""

_decode: Final = msgspec.json.Decoder().decode

_BLANK: Final = frozenset(" \t\r\n")
_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_Event = tuple[str, Any]


def parse(call: files.ParseJson, document: Document) -> files.Parsed:
    """Give what the query names.

    Raises:
        BadDocument, BodyTooLarge, InvalidCall, PreconditionFailed, Cancelled, DeadlineExceeded
    """
    query = Query.parse(call.query)
    place = document.place(call.OPERATION, call.cursor)
    with collector_resting(document.size_bytes):
        if document.small and place.kind != "b":
            return _of_whole(call, query, document, place)
        if place.kind != "i" and _is_of_array(call, query):
            window = _Window(document, place)
            if window.array:
                return _of_array(call, window, document)
        return _of_events(call, query, document, place)


def loads(body: bytes, document: Document) -> Any:
    """Parse a whole document, or a line.

    Raises:
        BadDocument
    """
    try:
        return _decode(body)
    except msgspec.DecodeError as failure:
        raise document.refuse(f"is no JSON: {failure}") from None
    except RecursionError:
        raise document.refuse("is nested too deeply") from None


# --- small


def _of_whole(call: files.ParseJson, query: Query, document: Document, place: Place) -> files.Parsed:
    found = loads(document.whole().removeprefix(codecs.BOM_UTF8), document)
    if query.pointer:
        value = one(query, found, document.path)
        if call.limit is None or not isinstance(value, list):
            return files.Parsed(path=call.path, value=value)
        items: Iterable[Any] = value
    else:
        items = query.of_whole(found)
    limit = call.limit or DEFAULT_LIMIT
    page = list(islice(items, place.position, place.position + limit + 1))
    after = Place("i", place.position + limit) if len(page) > limit else None
    cursor = None if after is None else document.cursor(after)
    return files.Parsed(path=call.path, items=tuple(page[:limit]), cursor=cursor)


# --- a large array, from a window of the file


def _is_of_array(call: files.ParseJson, query: Query) -> bool:
    """Say whether the query is for the elements of the whole document."""
    return query.tokens == (EACH,) if not query.pointer else not query.tokens and call.limit is not None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_decoder: Final = json.JSONDecoder(parse_constant=_no_constant)


class _Window:
    """A part of a large array's text. `at` is the character that is read next, `array` whether it is one at all."""

    def __init__(self, document: Document, place: Place) -> None:
        self._document = document
        self._reader: BinaryIO = document.reader(place.position)
        self._decode = codecs.getincrementaldecoder("utf-8-sig" if not place.position else "utf-8")()
        self._ended = False
        self._text = ""
        self._bytes = place.position
        self.at = 0
        self.array = True
        if not place.kind:
            # Bytes are counted from the text: those of a mark at the start (RFC 8259 section 8.1) are not in it.
            self._bytes += 3 if self._reader.peek(3)[:3] == codecs.BOM_UTF8 else 0  # type: ignore[attr-defined]
            self.array = self.skip() == "["
            self.at += 1

    def skip(self) -> str:
        """Go to the next character that is no blank, and give it; "" at the end."""
        while True:
            found = _BLANKS.match(self._text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def element(self) -> tuple[Any, int]:
        """Decode the element that begins here; give it and how many characters it has."""
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self.at)
            except (ValueError, RecursionError) as failure:
                # It may only be cut off by the window's end.
                if len(self._text) - self.at > SMALL_BYTES:
                    raise self._document.too_large() from None
                if isinstance(failure, RecursionError) or not self._more():
                    raise self._document.refuse(f"is no JSON at byte {self.position()}: {failure}") from None
                continue
            if end < len(self._text) or not self._more():  # a number at the window's end may go on
                length, self.at = end - self.at, end
                return value, length

    def take(self, page: Page) -> None:
        """Decode elements behind commas as long as they lie whole in the window: most do, and nothing is read on."""
        scan: Any = _decoder.scan_once  # type: ignore[attr-defined]  # what `raw_decode` calls
        text, at, end = self._text, self.at, len(self._text)
        while page.fits(0) and text[at : at + 1] == ",":
            begin = at + 1
            if text[begin : begin + 1] in _BLANK:
                begin = _BLANKS.match(text, begin).end()  # type: ignore[union-attr]  # it matches nothing, too
            try:
                value, stop = scan(text, begin)
            except (StopIteration, ValueError, RecursionError):
                break  # cut off by the window's end, or no JSON: whoever comes to it says so
            if stop == end:
                break
            page.add(value, stop - begin)
            at = stop
        self.at = at

    def position(self) -> int:
        """Give the byte at which the next character lies."""
        return self._bytes + len(self._text[: self.at].encode("utf-8", "surrogatepass"))

    def _more(self) -> bool:
        """Read on, and forget what is behind; False at the end of the file."""
        if self._ended:
            return False
        # As much again as is left, so that an element of any size is tried a few times only.
        chunk = self._reader.read(max(BUFFER_BYTES, len(self._text) - self.at))
        self._ended = not chunk
        self._bytes = self.position()
        try:
            self._text = self._text[self.at :] + self._decode.decode(chunk, final=self._ended)
        except UnicodeDecodeError as failure:
            raise self._document.refuse(f"is no UTF-8 after byte {self._bytes}: {failure.reason}") from None
        self.at = 0
        return True


def _of_array(call: files.ParseJson, window: _Window, document: Document) -> files.Parsed:
    """Give a page of elements; at the end of the last one nothing but blanks may follow."""
    page = Page(document, call.limit or DEFAULT_LIMIT)
    first = call.cursor is None
    while True:
        window.take(page)
        # A cursor leads to the comma behind an element, so what is between two elements is checked in one place.
        behind, sign = window.position() if not page.fits(0) else -1, window.skip()
        if sign == "]":
            break
        if behind != -1:
            return page.parsed(Place("b", behind))
        if not first:
            if sign != ",":
                raise document.refuse(f"is no JSON at byte {window.position()}: expected ',' or ']'")
            window.at += 1
            window.skip()
        first = False
        element, size = window.element()
        page.add(element, size)
    window.at += 1
    if window.skip():
        raise document.refuse(f"is no JSON: something follows the array at byte {window.position()}")
    return page.parsed(None)


# --- any other large document, by the parser's events


def _of_events(call: files.ParseJson, query: Query, document: Document, place: Place) -> files.Parsed:
    spread = query.pointer and call.limit is not None
    page, seen = Page(document, call.limit or DEFAULT_LIMIT), 0
    events = _events(document)
    for is_item, size, value in _Selection(query, document, spread=spread).of(events):
        if query.pointer and not is_item:
            return files.Parsed(path=call.path, value=value)
        seen += 1
        if seen <= place.position:
            continue
        if not page.fits(size):
            return page.parsed(Place("i", seen - 1))
        page.add(value, size)
    if query.pointer and not spread:
        raise missing(query, document.path)
    return page.parsed(None)


def _events(document: Document) -> Iterator[_Event]:
    reader = document.reader()
    reader.read(3 if reader.peek(3)[:3] == codecs.BOM_UTF8 else 0)  # type: ignore[attr-defined]
    try:
        for index, event in enumerate(ijson.basic_parse(reader, use_float=True)):
            if index % 4096 == 0:
                document.scope.check()
            yield event
    except UnicodeDecodeError as failure:
        raise document.refuse(f"is no UTF-8: {failure.reason}") from None
    except (ijson.JSONError, ValueError) as failure:
        # Its further lines are a part of the document, which has no place in an error.
        reason = next(iter(str(failure).splitlines()), "") or type(failure).__name__
        raise document.refuse(f"is no JSON: {reason}") from None


class _Selection:
    """Follows the events of a document to what a query names."""

    def __init__(self, query: Query, document: Document, *, spread: bool) -> None:
        self._query = query
        self._document = document
        self._spread = spread

    def of(self, events: Iterator[_Event]) -> Iterator[tuple[bool, int, Any]]:
        """Give whether it is one of several, its size, and the value itself, for each that is named."""
        for event, value in events:
            yield from self._value(event, value, events, 0)

    def _value(self, event: str, value: Any, events: Iterator[_Event], depth: int) -> Iterator[tuple[bool, int, Any]]:
        if depth == len(self._query.tokens):
            if self._spread and event == "start_array":
                yield from self._elements(events)
            else:
                yield (not self._query.pointer, *self._built(event, value, events))
        elif event == "start_map":
            yield from self._members(events, depth)
        elif event == "start_array":
            yield from self._indexed(events, depth)

    def _members(self, events: Iterator[_Event], depth: int) -> Iterator[tuple[bool, int, Any]]:
        key = ""
        for event, value in events:
            if event == "end_map":
                return
            if event == "map_key":
                key = value
            elif self._query.goes_into(depth, key):
                yield from self._value(event, value, events, depth + 1)
            elif event in ("start_map", "start_array"):
                _skip(events)

    def _indexed(self, events: Iterator[_Event], depth: int) -> Iterator[tuple[bool, int, Any]]:
        for index in count():
            event, value = next(events, ("end_array", None))
            if event == "end_array":
                return
            if self._query.goes_into(depth, index):
                yield from self._value(event, value, events, depth + 1)
            elif event in ("start_map", "start_array"):
                _skip(events)

    def _elements(self, events: Iterator[_Event]) -> Iterator[tuple[bool, int, Any]]:
        for event, value in events:
            if event == "end_array":
                return
            yield (True, *self._built(event, value, events))

    def _built(self, event: str, value: Any, events: Iterator[_Event]) -> tuple[int, Any]:
        """Build the value that begins with an event; give its size, too."""
        if event not in ("start_map", "start_array"):
            return EVENT_BYTES + (len(value) if isinstance(value, str) else 0), value
        builder, depth, size = ObjectBuilder(), 1, EVENT_BYTES
        builder.event(event, value)
        while depth:
            event, value = next(events)
            builder.event(event, value)
            depth += (event in ("start_map", "start_array")) - (event in ("end_map", "end_array"))
            size += EVENT_BYTES + (len(value) if isinstance(value, str) else 0)
            if size > SMALL_BYTES:
                raise self._document.too_large()
        return size, builder.value


def _skip(events: Iterator[_Event]) -> None:
    depth = 1
    for event, _ in events:
        if event in ("start_map", "start_array"):
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1
            if not depth:
                return

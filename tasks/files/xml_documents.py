"""XML documents of any size. One with a DOCTYPE is refused before its content is read.

Entities can only be declared in a DOCTYPE, so without one neither a billion laughs nor an external entity exists. It
comes before the root element (XML 1.0, production 22): a parser that stops there (expat) looks for it first. The
content is parsed by lxml, small documents as a whole, large ones by events, each element dropped once it has ended.
Its own bounds stand: 256 levels, 10 million characters a text.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self
from xml.parsers import expat

from lxml import etree

from gaia.contracts import files
from gaia.errors import InvalidCall
from tasks.files.pages import SMALL_BYTES, Document, Page, Place, collector_resting

ELEMENT_BYTES: Final = 64
"""What an element counts for in the size of a value, beside its texts."""

PROLOG_BYTES: Final = 1 << 20
"""A root element that does not begin within this much is refused."""

_NAME: Final = r"[^\s/\[\]@'\"()*|=,:]+"
_QUERY: Final = re.compile(
    rf"(?P<start>//|/|)(?P<steps>(?:{_NAME}|\*)(?:/(?:{_NAME}|\*))*)"
    rf"(?:\[@(?P<key>{_NAME})=(?:'(?P<one>[^']*)'|\"(?P<two>[^\"]*)\")\])?"
    rf"(?:/(?:@(?P<attribute>{_NAME})|(?P<text>text\(\))))?"
)


@dataclass(frozen=True)
class Path:
    """A query, compiled."""

    steps: tuple[str, ...]
    anywhere: bool
    key: str | None = None
    value: str | None = None
    attribute: str | None = None
    text: bool = False

    @classmethod
    def parse(cls, call: files.ParseXml) -> Self:
        """Read a query.

        Raises:
            InvalidCall: if it is none of this subset.
        """
        found = _QUERY.fullmatch(call.query)
        if found is None or {".", ".."} & set(found["steps"].split("/")):
            raise InvalidCall(call.OPERATION, "query", "must be a path such as /feed/entry[@lang='en']/@id or //entry")
        return cls(
            steps=tuple(found["steps"].split("/")),
            anywhere=found["start"] == "//",
            key=found["key"],
            value=found["one"] if found["one"] is not None else found["two"],
            attribute=found["attribute"],
            text=found["text"] is not None,
        )

    def matches(self, trail: list[str], element: Any) -> bool:
        """Say whether the element that ends a trail of names is one."""
        if len(trail) < len(self.steps) or (not self.anywhere and len(trail) != len(self.steps)):
            return False
        here = trail[len(trail) - len(self.steps) :]
        if not all(step in ("*", name) for step, name in zip(self.steps, here, strict=True)):
            return False
        return self.key is None or _attribute(element, self.key) == self.value

    def of(self, element: Any) -> Any:
        """Give what is asked for of an element; None if it has it not."""
        if self.attribute is not None:
            return _attribute(element, self.attribute)
        return "".join(element.itertext()) if self.text else as_json(element)


def parse(call: files.ParseXml, document: Document) -> files.Parsed:
    """Give what the query names, or the whole document.

    Raises:
        BadDocument, BodyTooLarge, InvalidCall, PreconditionFailed, Cancelled, DeadlineExceeded
    """
    place = document.place(call.OPERATION, call.cursor)
    path = Path.parse(call) if call.query else None
    _refuse_doctype(document)
    try:
        with collector_resting(document.size_bytes):
            if path is None:
                if not document.small:
                    raise document.too_large()
                return files.Parsed(path=call.path, value=as_json(_root(document)))
            return _page(call, path, document, place)
    except etree.XMLSyntaxError as failure:
        raise document.refuse(f"is no XML: {failure.msg}") from None


def as_json(element: Any) -> dict[str, Any]:
    """Give an element as JSON; the parser bounds how deep it can be."""
    found: dict[str, Any] = {"tag": element.tag}
    if element.attrib:
        found["attributes"] = dict(element.attrib)
    if element.text and element.text.strip():
        found["text"] = element.text
    children = [as_json(each) for each in element if isinstance(each.tag, str)]
    if children:
        found["children"] = children
    return found


def _attribute(element: Any, name: str) -> str | None:
    """Give an attribute by its name, whatever its namespace; None if there is none."""
    plain: str | None = element.get(name)
    if plain is not None:
        return plain
    return next((value for key, value in element.attrib.items() if key.endswith("}" + name)), None)


def _page(call: files.ParseXml, path: Path, document: Document, place: Place) -> files.Parsed:
    page, seen = Page(document, call.limit), 0
    for element, size in _matches(path, document):
        found = path.of(element)
        if found is None:
            continue
        seen += 1
        if seen <= place.position:
            continue
        if not page.fits(size):
            return page.parsed(Place("i", seen - 1))
        page.add(found, size)
    return page.parsed(None)


def _matches(path: Path, document: Document) -> Iterator[tuple[Any, int]]:
    """Give the elements that match as they end, inner ones before outer ones, each with its size."""
    trail: list[str] = []
    begun: list[int] = []
    size = 0
    for index, (event, element) in enumerate(_events(document)):
        if index % 4096 == 0:
            document.scope.check()
        if event == "start":
            trail.append(etree.QName(element).localname)
            size += ELEMENT_BYTES
            if path.matches(trail, element):
                begun.append(size)
            continue
        size += len(element.text or "") + sum(len(key) + len(value) for key, value in element.attrib.items())
        if begun and size - begun[0] > SMALL_BYTES:
            raise document.too_large()
        if begun and path.matches(trail, element):
            yield element, size - begun.pop() + ELEMENT_BYTES
        trail.pop()
        if not begun and not document.small:
            _drop(element)


def _drop(element: Any) -> None:
    """Forget an element that has ended, and those before it, which its parent would keep."""
    element.clear(keep_tail=True)
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def _options() -> dict[str, bool]:
    # Comments are left out as they are read: they would be kept until the element after them ends.
    bounds = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
    return {**bounds, "remove_comments": True, "remove_pis": True}


def _root(document: Document) -> Any:
    root = etree.fromstring(document.whole(), etree.XMLParser(**_options()))
    if root.getroottree().docinfo.internalDTD is not None:
        raise document.refuse("has a DOCTYPE, which is refused")
    return root


def _events(document: Document) -> Iterator[tuple[str, Any]]:
    if document.small:
        events: Any = etree.iterwalk(_root(document), events=("start", "end"))
    else:
        events = etree.iterparse(document.reader(), events=("start", "end"), **_options())
    return ((event, element) for event, element in events if isinstance(element.tag, str))


class _Begun(Exception):  # noqa: N818 - no error: the prolog is over
    """The root element begins."""


def _refuse_doctype(document: Document) -> None:
    """Look at what comes before the root element.

    Raises:
        BadDocument: if it has a DOCTYPE, or no root element begins.
    """
    parser = expat.ParserCreate()

    def on_doctype(*_: Any) -> None:
        raise document.refuse("has a DOCTYPE, which is refused")

    def on_start(*_: Any) -> None:
        raise _Begun

    parser.StartDoctypeDeclHandler = on_doctype
    parser.StartElementHandler = on_start
    try:
        for at in range(0, PROLOG_BYTES, PROLOG_BYTES // 16):
            chunk = os.pread(document.fd, PROLOG_BYTES // 16, at)
            parser.Parse(chunk, not chunk)
            if not chunk:
                break
    except _Begun:
        return
    except (expat.ExpatError, ValueError, LookupError) as failure:
        raise document.refuse(f"is no XML: {failure}") from None
    raise document.refuse("has no root element in its first mebibyte")

"""Documents, small and large alike: what a query names, page by page, and what is refused."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gaia.contracts import files
from gaia.errors import BadDocument, BodyTooLarge, Cancelled, DeadlineExceeded, InvalidCall, PreconditionFailed
from tasks.files import pages
from tasks.files.queries import Query
from tasks.scope import Clock, Scope
from tests.unit.files.conftest import Door

ROWS = [{"id": number, "name": f"näme {number}", "tags": ["x", {"y": number}]} for number in range(500)]
LAUGHS = (
    b"""<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">]><l>&lol2;</l>"""
)
EXTERNAL = b"""<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>"""


@pytest.fixture(params=["whole", "by parts"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways of parsing give the same: as if small, or as if large, with buffers that end in mid-word."""
    if request.param == "by parts":
        monkeypatch.setattr(pages.Document, "small", property(lambda self: self.size_bytes < 10))
        monkeypatch.setattr(pages, "BUFFER_BYTES", 97)
        monkeypatch.setattr("tasks.files.json_documents.BUFFER_BYTES", 97)
    return str(request.param)


def put(door: Door, body: bytes | object, name: str = "f") -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    (door.root / name).write_bytes(raw)
    return f"data:{name}"


def all_of(door: Door, make: Any) -> list[Any]:
    """Give the items of every page."""
    found: list[Any] = []
    cursor = None
    while True:
        page = door(make(cursor))
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 7, 499, 500, 501])
@pytest.mark.parametrize("query", ["", "item"])
def test_an_array_comes_in_pages(door: Door, way: str, query: str, limit: int) -> None:
    path = put(door, ROWS if limit > 1 else ROWS[:40])
    found = all_of(door, lambda cursor: files.ParseJson(path, query, limit=limit, cursor=cursor))
    assert found == (ROWS if limit > 1 else ROWS[:40])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("/rows/3/name", ROWS[3]["name"]),
        ("/rows/499/tags/1/y", 499),
        ("/a~1b/m~0n", {"deep": [1.5, None, True, "é"]}),
        ("/rows/2", ROWS[2]),
        ("/empty", []),
    ],
)
def test_a_pointer_names_one_value(door: Door, way: str, query: str, expected: Any) -> None:
    path = put(door, {"rows": ROWS, "a/b": {"m~n": {"deep": [1.5, None, True, "é"]}}, "empty": []})
    assert door(files.ParseJson(path, query)).value == expected


@pytest.mark.parametrize("query", ["/no", "/rows/500", "/rows/01", "/rows/-", "/rows/3/name/x"])
def test_a_pointer_to_nothing_is_an_error(door: Door, way: str, query: str) -> None:
    with pytest.raises(BadDocument) as caught:
        door(files.ParseJson(put(door, {"rows": ROWS}), query))
    assert caught.value.path == "data:f"


@pytest.mark.parametrize(
    ("query", "limit", "expected"),
    [
        ("rows.item.id", 13, list(range(500))),
        ("rows.item.tags.item.y", 100, list(range(500))),
        ("/rows", 200, ROWS),
        ("rows.item.none", 10, []),
        ("other", 10, [{"z": 1}]),
    ],
)
def test_an_item_path_or_an_array_comes_in_pages(
    door: Door, way: str, query: str, limit: int, expected: list[Any]
) -> None:
    path = put(door, {"skip": [[1, {"a": 2}]], "rows": ROWS, "other": {"z": 1}})
    assert all_of(door, lambda cursor: files.ParseJson(path, query, limit=limit, cursor=cursor)) == expected


def test_a_byte_order_mark_and_blanks_are_passed_over(door: Door, way: str) -> None:
    path = put(door, b"\xef\xbb\xbf \n[ 1 ,\t2\r\n, 3 ] \n")
    assert all_of(door, lambda cursor: files.ParseJson(path, "item", limit=1, cursor=cursor)) == [1, 2, 3]


def test_numbers_keep_every_digit_that_json_has(door: Door, way: str) -> None:
    numbers = [2**64, -(2**63) - 1, 10**400, 0.1, 1e22, -0.0]
    path = put(door, json.dumps(numbers).encode())
    found = all_of(door, lambda cursor: files.ParseJson(path, "item", limit=2, cursor=cursor))
    assert [repr(each) for each in found] == [repr(each) for each in numbers]


@pytest.mark.parametrize(
    "body",
    [
        b"[1, 2", b"[1, 2,]", b"[1 2]", b"[1, 2] x", b"[1, NaN]", b'[1, "\xff\xfe"]', b"[1, Infinity]", b"{", b"",
        b"[" * 100_000, b'{"a":' * 100_000, b"[1, tru]", b'["\x01"]', b"[,1]", b"nonsense here", b"[1]\x00",
        b"[" + b"9" * 5000 + b"]",
    ],
    ids=lambda body: ascii(body[:12]),
)  # fmt: skip
def test_what_is_no_json_is_a_bad_document(door: Door, way: str, body: bytes) -> None:
    with pytest.raises(BadDocument) as caught:
        all_of(door, lambda cursor: files.ParseJson(put(door, body), "item", limit=5, cursor=cursor))
    assert caught.value.path == "data:f"


def test_a_value_over_the_bound_is_refused_and_not_built(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(door, b'[1, "' + b"x" * (18 << 20) + b'"]')
    with pytest.raises(BodyTooLarge):
        door(files.ParseJson(path, "item"))
    with pytest.raises(BodyTooLarge):
        door(files.ParseJson(path, ""))
    path = put(door, b'{"a": [' + b"1," * (6 << 20) + b"1]}")
    with pytest.raises(BodyTooLarge):
        door(files.ParseJson(path, "/a"))


def test_a_cursor_of_a_file_that_changed_is_refused(door: Door, way: str) -> None:
    path = put(door, ROWS)
    cursor = door(files.ParseJson(path, "item", limit=3)).cursor
    put(door, ROWS[:-1])
    with pytest.raises(PreconditionFailed):
        door(files.ParseJson(path, "item", limit=3, cursor=cursor))
    for wrong in ("x", "b1", "b-1@0.0", "i" + "9" * 30 + "@0.0"):
        with pytest.raises(InvalidCall, match="cursor"):
            door(files.ParseJson(path, "item", limit=3, cursor=wrong))


def test_a_large_parse_ends_when_it_is_cancelled(door: Door, way: str) -> None:
    path = put(door, ROWS)
    door.scope.cancelled.set()
    with pytest.raises(Cancelled):
        door(files.ParseJson(path, "item"))


def test_the_collector_rests_while_a_large_document_is_parsed() -> None:
    import gc

    with pages.collector_resting(pages.QUIET_BYTES), pages.collector_resting(pages.QUIET_BYTES):
        assert not gc.isenabled()
    assert gc.isenabled()


def test_queries_are_read_as_rfc_6901_says() -> None:
    assert Query.parse("/a~01/~1") == Query(("a~1", "/"), pointer=True)
    assert Query.parse("") == Query((), pointer=True)
    assert Query.parse("/") == Query(("",), pointer=True)
    assert Query.parse("a.item") == Query(("a", "item"), pointer=False)


# --- lines


def test_lines_come_in_pages_and_growth_is_seen(door: Door) -> None:
    body = b"".join(json.dumps(each).encode() + b"\n\n" for each in ROWS)
    path = put(door, body)
    assert all_of(door, lambda cursor: files.ParseJsonl(path, limit=37, cursor=cursor)) == ROWS
    ids = all_of(door, lambda cursor: files.ParseJsonl(path, "/id", limit=37, cursor=cursor))
    assert ids == list(range(500))
    cursor = door(files.ParseJsonl(path, limit=499)).cursor
    door(files.Append(path, b'{"id": "new"}'))
    assert [each["id"] for each in door(files.ParseJsonl(path, cursor=cursor)).items] == [499, "new"]


def test_a_bad_line_is_named_by_its_byte(door: Door) -> None:
    with pytest.raises(BadDocument, match="the line at byte 4 is no JSON"):
        door(files.ParseJsonl(put(door, b"[1]\n{bad}\n")))
    with pytest.raises(BadDocument, match="the line at byte 0 holds nothing"):
        door(files.ParseJsonl(put(door, b"[1]\n"), "/a"))
    with pytest.raises(BodyTooLarge):
        door(files.ParseJsonl(put(door, b"x" * (9 << 20))))


def test_rows_come_in_pages_with_names_or_without(door: Door) -> None:
    path = put(door, '\ufeffid,"na\nme",x\n'.encode() + b"".join(b'%d,"a,""b\n%d",z\n' % (n, n) for n in range(100)))
    expected = [{"id": str(n), "na\nme": f'a,"b\n{n}', "x": "z"} for n in range(100)]
    assert all_of(door, lambda cursor: files.ParseCsv(path, limit=7, cursor=cursor)) == expected
    chosen = all_of(door, lambda cursor: files.ParseCsv(path, ("x", "id"), limit=7, cursor=cursor))
    assert chosen == [{"x": "z", "id": str(n)} for n in range(100)]
    plain = all_of(door, lambda cursor: files.ParseCsv(path, first_row_names=False, limit=7, cursor=cursor))
    assert len(plain) == 101
    assert plain[0] == ["id", "na\nme", "x"]


@pytest.mark.parametrize("body", [b"a,b\n1\n", b'a,b\n"1,2\n', b"a,b\n\xff,2\n", b'a,b\n"1"x,2\n'])
def test_what_is_no_table_is_a_bad_document(door: Door, body: bytes) -> None:
    with pytest.raises(BadDocument):
        door(files.ParseCsv(put(door, body)))
    with pytest.raises(InvalidCall, match="columns"):
        door(files.ParseCsv(put(door, b"a,b\n1,2\n"), ("c",)))


# --- XML

FEED = (
    b"<?xml version='1.0'?><!-- note --><feed xmlns='urn:f' lang='en'><title>T</title>"
    + b"".join(
        b"<entry id='%d' kind='%s'><n>%d</n><entry id='in'/></entry>" % (n, b"ab"[n % 2 :][:1], n) for n in range(50)
    )
    + b"</feed>"
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("/feed/entry/@id", [str(n) for n in range(50)]),
        ("/feed/entry[@kind='a']/@id", [str(n) for n in range(0, 50, 2)]),
        ("//n/text()", [str(n) for n in range(50)]),
        ("/feed/*/n/text()", [str(n) for n in range(50)]),
        ("feed/@lang", ["en"]),
        ("/entry", []),
        ("//entry/@none", []),
    ],
)
def test_a_path_names_elements_in_pages(door: Door, way: str, query: str, expected: list[Any]) -> None:
    path = put(door, FEED)
    assert all_of(door, lambda cursor: files.ParseXml(path, query, limit=9, cursor=cursor)) == expected


def test_an_element_is_given_with_what_it_holds(door: Door, way: str) -> None:
    path = put(door, b"<r><e a='1'>t<i/>u<?p?><!--c--></e></r>")
    assert door(files.ParseXml(path, "/r/e")).items == (
        {"tag": "e", "attributes": {"a": "1"}, "text": "t", "children": [{"tag": "i"}]},
    )


def test_inner_matches_come_before_the_outer_one_that_is_whole(door: Door, way: str) -> None:
    found = door(files.ParseXml(put(door, FEED), "//entry", limit=2)).items
    assert found[0]["attributes"] == {"id": "in"}
    assert [each["tag"] for each in found[1]["children"]] == ["{urn:f}n", "{urn:f}entry"]


@pytest.mark.parametrize("body", [LAUGHS, EXTERNAL, b"<!DOCTYPE r><r/>", EXTERNAL.decode().encode("utf-16")])
@pytest.mark.parametrize("query", ["", "//r"])
def test_a_doctype_is_refused(door: Door, way: str, body: bytes, query: str) -> None:
    with pytest.raises(BadDocument, match="DOCTYPE") as caught:
        door(files.ParseXml(put(door, body), query))
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"<r>", b"<r></q>", b"\xff<r/>", b"<r>\x01</r>", b"<r>&x;</r>", b"text", b" " * (2 << 20), b"<r/><r/>",
     b"<a>" * 1000 + b"</a>" * 1000],
    ids=lambda body: ascii(body[:12]),
)  # fmt: skip
def test_what_is_no_xml_is_a_bad_document(door: Door, way: str, body: bytes) -> None:
    with pytest.raises(BadDocument) as caught:
        door(files.ParseXml(put(door, body), "//r"))
    assert caught.value.path == "data:f"


@pytest.mark.parametrize("query", ["//", "a[1]", "a/b[@x]", "count(//a)", "a|b", "../a", "/a//b", "@x", "a[@x='1']["])
def test_a_path_beyond_the_subset_is_an_invalid_call(door: Door, query: str) -> None:
    with pytest.raises(InvalidCall, match="query"):
        door(files.ParseXml(put(door, b"<a/>"), query))


def test_a_large_document_without_a_query_is_too_large(door: Door, way: str) -> None:
    if way == "by parts":
        with pytest.raises(BodyTooLarge):
            door(files.ParseXml(put(door, FEED), ""))
    else:
        assert door(files.ParseXml(put(door, FEED), "")).value["tag"] == "{urn:f}feed"


def test_an_error_quotes_nothing_of_a_json_document(door: Door, way: str) -> None:
    for body in (b'[1, tru, "hunter2"]', b'{"a": {"b": hunter2}}', b'{"a": "\x01hunter2"}', b'["hunter2" 2]'):
        for query in ("item", "item.x", "a.b"):
            with pytest.raises(BadDocument) as caught:
                all_of(door, lambda cursor, q=query, b=body: files.ParseJson(put(door, b), q, cursor=cursor))
            assert "hunter2" not in str(caught.value)


def test_comments_are_no_part_of_a_text(door: Door, way: str) -> None:
    path = put(door, b"<?a b?><r><!-- c --><t>one<!-- two -->three<?p q?>four</t></r>")
    assert door(files.ParseXml(path, "//t")).items == ({"tag": "t", "text": "onethreefour"},)


def test_a_row_without_end_is_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.files.tables.SMALL_BYTES", 10_000)
    endless = b'"x\n",' * 5000
    for head in (b"", b"a,b\n"):
        with pytest.raises(BodyTooLarge):
            door(files.ParseCsv(put(door, head + endless)))
    many = b'"x\n","y"\n' * 5000
    assert (
        len(all_of(door, lambda cursor: files.ParseCsv(put(door, many), first_row_names=False, cursor=cursor))) == 5000
    )


@pytest.mark.parametrize("kind", [files.ParseJsonl, files.ParseCsv, files.ParseJson, files.ParseXml])
def test_a_file_of_nothing_but_blanks_is_left_when_the_time_is_over(door: Door, kind: Any) -> None:
    path = put(door, b"\n" * (10 << 20))
    ticks = itertools.count()
    clock = Clock(monotonic=lambda: float(next(ticks)))
    # A small file takes seven looks at the clock: it is the blanks that take more.
    door.scope = Scope("1", kind.OPERATION, 8.5, clock=clock)
    with pytest.raises((DeadlineExceeded, BadDocument)) as caught:
        door(kind(path))
    assert kind is files.ParseXml or caught.type is DeadlineExceeded

"""Requests and their responses."""

from typing import Any

import pytest

from gaia.contracts.api import Request, Response
from gaia.errors import InvalidCall


def refused(**fields: Any) -> tuple[str, str]:
    with pytest.raises(InvalidCall) as caught:
        Request(**{"url": "http://h/", **fields})
    return caught.value.field, caught.value.reason


@pytest.mark.parametrize(
    "url",
    [
        "", "h", "/x", "ftp://h/", "file:///etc/passwd", "http:", "http://", "http:///x", "http://:80/", "HTTP//h",
        "http://h:0/", "http://h:65536/", "http://h:x/", "http://[::1/", "javascript:alert(1)", "http://h/ x",
        "http://h/\r\nHost: x", "http://h/\tx", "http://h/\0", "http://h/\x1f", "http://h/\x7f", "\nhttp://h/",
        "http://h/\ud800", "http://h/" + "x" * 9000,
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_sent_is_refused(url: str) -> None:
    assert refused(url=url)[0] == "url"


@pytest.mark.parametrize("url", ["http://h", "https://h:65535/?#", "HTTP://h/", "http://[::1]:80/", "http://u:p@h/ü"])
def test_a_url_with_scheme_and_host_is_taken(url: str) -> None:
    assert Request(url).url == url


@pytest.mark.parametrize("method", ["get", "", "CONNECT", "GET ", "GET\r\n", 1, None, ["GET"]])
def test_a_method_is_one_of_the_list(method: Any) -> None:
    assert refused(method=method)[0] == "method"


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\0", "ä", "a\x7f", "(", "Authorization: x"])
def test_a_header_name_is_a_token(name: str) -> None:
    assert refused(headers={name: "x"})[0] == "headers"


def test_a_header_that_was_given_as_a_name_is_not_shown() -> None:
    assert "abcdefgh" not in refused(headers={"Authorization: Bearer abcdefgh": ""})[1]


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\nx: y", "\0", 1, None, b"x"])
def test_a_header_value_is_one_line_of_text(value: Any) -> None:
    assert refused(headers={"a": value})[0].startswith("headers")


@pytest.mark.parametrize("names", [("json", "data"), ("json", "body"), ("data", "body"), ("json", "data", "body")])
def test_bodies_exclude_each_other(names: tuple[str, ...]) -> None:
    bodies: dict[str, Any] = {"json": {}, "data": {}, "body": b""}
    field, reason = refused(**{name: bodies[name] for name in names})
    assert (field, reason) == (names[-1], f"excludes {list(names[:-1])}")


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_redirects", -1), ("max_redirects", 51), ("max_body_bytes", -1), ("max_body_bytes", 64 * 1024 * 1024 + 1)],
)
def test_numbers_have_bounds(field: str, value: int) -> None:
    assert refused(**{field: value})[0] == field


# --- responses


def response(body: bytes, content_type: str | None = None) -> Response:
    return Response(200, {} if content_type is None else {"content-type": content_type}, body, "http://h/", 0.1)


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("ü".encode(), None, "ü"),
        ("ü".encode("latin-1"), "text/plain; charset=ISO-8859-1", "ü"),
        ("ü".encode("utf-16"), 'text/plain; boundary=x; CHARSET="utf-16"', "ü"),
        (b"\xff", "text/plain", "\N{REPLACEMENT CHARACTER}"),
        ("ü".encode(), "text/plain; charset=no-such", "ü"),
        ("ü".encode(), "text/plain; charset=", "ü"),
        (b"abc", "text/plain; charset=base64", "abc"),
        (b"abc", "text/plain; charset=a\0b", "abc"),
        (b"abc", "; ; charset", "abc"),
        (b"abc", "text/plain; charset=undefined", "abc"),
    ],
)
def test_text_is_decoded_by_the_charset(body: bytes, content_type: str | None, text: str) -> None:
    assert response(body, content_type).text() == text


def test_json_is_parsed_and_what_is_none_is_a_value_error() -> None:
    assert response(b'{"a": [1]}').json() == {"a": [1]}
    for body in (b"", b"{", b"\xff"):
        with pytest.raises(ValueError):
            response(body).json()

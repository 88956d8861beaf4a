"""Captures."""

from typing import Any

import pytest

from gaia.contracts.browser import FORMATS, Capture, Viewport
from gaia.errors import InvalidCall


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidCall) as caught:
        Capture(**fields).fields_json()
    return caught.value.field


def test_exactly_one_of_url_and_html_is_given() -> None:
    assert refused() == "url"
    assert refused(url="http://h/", html="<p>") == "url"
    assert Capture(html="").html == ""


@pytest.mark.parametrize(
    "url", ["", "about:blank", "file:///x", "data:text/html,x", "http://", "http://h/\t", "http://["]
)
def test_a_page_is_of_http(url: str) -> None:
    assert refused(url=url) == "url"


@pytest.mark.parametrize("formats", [(), ("gif",), ("png", "gif"), "png", None, (1,), {}])
def test_formats_are_of_the_list(formats: Any) -> None:
    assert refused(html="", formats=formats).startswith("formats")


def test_a_list_of_formats_is_taken() -> None:
    assert Capture(html="", formats=list(FORMATS)).fields_json()["formats"] == list(FORMATS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "viewport",
    [
        Viewport(0, 1),
        Viewport(1, 8193),
        Viewport(scale=0.05),
        Viewport(scale=5),
        Viewport(width=True),
        None,
        (1, 1),
        "1x1",
    ],
)
def test_a_viewport_has_bounds(viewport: Any) -> None:
    assert refused(html="", viewport=viewport).startswith("viewport")


@pytest.mark.parametrize("selector", ["", "\0", "x" * 9000, "\ud800", 1])
def test_a_selector_is_text(selector: Any) -> None:
    assert refused(html="", wait_for=selector) == "wait_for"

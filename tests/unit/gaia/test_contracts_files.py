"""Paths."""

from typing import Any

import pytest

from gaia.contracts.file_bounds import PATH_LIMIT
from gaia.contracts.files import Read, Write
from gaia.errors import InvalidCall


@pytest.mark.parametrize(
    "path",
    [
        "", "x", "data", "/etc/passwd", ":x", "data:/etc/passwd", "data:\0", "data:" + "x" * PATH_LIMIT, "data:\ud800",
        None, 1, b"data:x", ["data:x"],
    ],
)  # fmt: skip
def test_a_path_is_relative_to_a_root(path: Any) -> None:
    for make in (lambda: Read(path), lambda: Write(path, b"")):
        with pytest.raises(InvalidCall) as caught:
            make()
        assert caught.value.field == "path"


@pytest.mark.parametrize("path", ["data:", "data:x", "data:a/b c/ü", "data:a:b", "data:x" + "y" * (PATH_LIMIT - 6)])
def test_a_path_of_that_form_is_taken(path: str) -> None:
    assert Read(path).path == path


@pytest.mark.parametrize("limit", [-1, 64 * 1024 * 1024 + 1, "1", float("nan")])
def test_what_is_read_has_a_bound(limit: Any) -> None:
    with pytest.raises(InvalidCall) as caught:
        Read("data:x", limit)
    assert caught.value.field == "max_bytes"


@pytest.mark.parametrize("body", ["text", None, [1], 5])
def test_a_body_is_bytes(body: Any) -> None:
    with pytest.raises(InvalidCall) as caught:
        Write("data:x", body).fields_json()
    assert caught.value.field == "body"

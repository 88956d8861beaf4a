"""JSON, read and written fast."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.broker import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_the_standard_library_writes_is_read_the_same(value: Any) -> None:
    text = json.dumps(value)
    assert repr(jsontext.loads(text)) == repr(jsontext.loads(text.encode())) == repr(json.loads(text))


@given(VALUES)
def test_what_is_written_the_standard_library_reads_the_same(value: Any) -> None:
    assert repr(json.loads(jsontext.dumps(value))) == repr(value)


@pytest.mark.parametrize("text", ['"\\ud800"', '["\\udfff x"]'])
def test_half_a_surrogate_pair_survives(text: str) -> None:
    assert json.loads(jsontext.dumps(jsontext.loads(text))) == json.loads(text)


def test_bytes_that_are_no_utf_8_are_read_as_kombu_would() -> None:
    assert jsontext.loads('"\ud800"'.encode("utf-8", "surrogatepass")) == jsontext.loads('"\ud800"') == "\ud800"


def test_what_python_alone_calls_json_is_read() -> None:
    assert math.isnan(jsontext.loads("NaN"))
    assert jsontext.loads(b"[Infinity]") == [math.inf]


@pytest.mark.parametrize("text", [b"", b"{", b"nonsense", b"\xff", "[1,]", b"[1] x", "9" * 5000])
def test_what_is_no_json_is_a_value_error(text: bytes | str) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(text)


def test_json_nested_too_deeply_is_a_recursion_error() -> None:
    with pytest.raises(RecursionError):
        jsontext.loads(b"[" * 100_000)


def test_what_is_no_plain_json_is_written_as_kombu_writes_it() -> None:
    class Own:
        def __json__(self) -> dict[str, int]:
            return {"a": 1}

    assert jsontext.loads(jsontext.dumps([Own()])) == [{"a": 1}]

"""What a message must be before it is handed on."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaia import wire
from tasks.broker.reading import OVERDUE_S, due_at, flaw_of, paused_in, renewed_until

MESSAGE: dict[str, Any] = {
    "body": "W10=",
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"task": "q.x", "id": "i"},
    "properties": {
        "delivery_tag": "t",
        "delivery_info": {"exchange": "", "routing_key": "q"},
        "body_encoding": "base64",
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def test_a_message_of_kombu_has_none() -> None:
    assert flaw_of(MESSAGE) is None


@pytest.mark.parametrize(
    "change",
    [
        {"body": ""},
        {"body": "plain", "properties": {**MESSAGE["properties"], "body_encoding": None}},
        {"body": "plain", "properties": {**MESSAGE["properties"], "body_encoding": "utf-8"}},
        {"headers": {}},
    ],
)
def test_what_kombu_can_read_has_none(change: dict[str, Any]) -> None:
    assert flaw_of({**MESSAGE, **change}) is None


@pytest.mark.parametrize(
    ("message", "flaw"),
    [
        (None, "it is no object"),
        ([], "it is no object"),
        ("x", "it is no object"),
        ({}, "it has no delivery tag"),
        ({**MESSAGE, "properties": None}, "it has no delivery tag"),
        ({**MESSAGE, "properties": []}, "it has no delivery tag"),
        ({**MESSAGE, "properties": {"delivery_tag": 1}}, "it has no delivery tag"),
        ({**MESSAGE, "properties": {"delivery_tag": ["t"]}}, "it has no delivery tag"),
        ({**MESSAGE, "properties": {"delivery_tag": "t"}}, "it has no delivery information"),
        (
            {**MESSAGE, "properties": {"delivery_tag": "t", "delivery_info": {"exchange": ""}}},
            "it has no delivery information",
        ),
        ({**MESSAGE, "body": {"a": 1}}, "its body is no text"),
        ({**MESSAGE, "body": None}, "its body is no text"),
        ({**MESSAGE, "headers": None}, "it has no headers"),
        ({**MESSAGE, "headers": "x"}, "it has no headers"),
        ({name: value for name, value in MESSAGE.items() if name != "headers"}, "it has no headers"),
        ({**MESSAGE, "headers": {"task": ["q.x"]}}, "its task is no name"),
        ({**MESSAGE, "headers": {"task": {}}}, "its task is no name"),
        ({**MESSAGE, "headers": {"task": None}}, "its task is no name"),
        ({**MESSAGE, "body": "W10"}, "its body cannot be decoded"),
        ({**MESSAGE, "body": "é"}, "its body cannot be decoded"),
        ({**MESSAGE, "properties": {**MESSAGE["properties"], "body_encoding": "rot13"}}, "its body cannot be decoded"),
        ({**MESSAGE, "properties": {**MESSAGE["properties"], "body_encoding": 5}}, "its body cannot be decoded"),
        ({**MESSAGE, "properties": {**MESSAGE["properties"], "body_encoding": ["x"]}}, "its body cannot be decoded"),
    ],
)
def test_a_flaw_is_named(message: object, flaw: str) -> None:
    assert flaw_of(message) == flaw


@settings(deadline=None, database=None, derandomize=True)
@given(value=JSON, name=st.sampled_from(["body", "headers", "properties"]))
def test_no_json_makes_it_fail(value: Any, name: str) -> None:
    flaw_of(value)
    flaw_of({**MESSAGE, name: value})


@settings(deadline=None, database=None, derandomize=True)
@given(value=JSON, name=st.sampled_from([wire.HEADER, "eta", "task"]))
def test_no_header_makes_reading_it_fail(value: Any, name: str) -> None:
    headers = {"task": "q.x", name: value}
    assert math.isfinite(renewed_until({"headers": headers}))
    assert renewed_until({"headers": {wire.HEADER: {"deadline": value}}}) >= time.monotonic()
    due_at(headers)
    paused_in(headers, {"q"})


@pytest.mark.parametrize("deadline", ["NaN", "Infinity", "1e999", "1" + "0" * 400])
def test_a_deadline_beyond_every_clock_counts_as_none(deadline: str) -> None:
    header = json.loads(f'{{"deadline": {deadline}}}')
    found = renewed_until({"headers": {wire.HEADER: header}})
    assert found <= time.monotonic() + wire.DEFAULT_DEADLINE_S + OVERDUE_S


def test_a_lease_is_renewed_until_a_while_past_the_deadline() -> None:
    before = time.monotonic()
    found = renewed_until({"headers": {wire.HEADER: {"deadline": time.time() + 100}}})
    assert before + 99 + OVERDUE_S < found < time.monotonic() + 101 + OVERDUE_S


@pytest.mark.parametrize(
    ("eta", "due"),
    [
        ("2030-01-01T00:00:00+00:00", 1893456000.0),
        ("2030-01-01T00:00:00", 1893456000.0),
        ("2030-01-01T01:00:00+01:00", 1893456000.0),
        ("soon", None),
        ("", None),
        (None, None),
        (1893456000, None),
    ],
)
def test_an_eta_is_a_time_in_utc_unless_it_says_otherwise(eta: Any, due: float | None) -> None:
    assert due_at({"eta": eta}) == due


@pytest.mark.parametrize(
    ("task", "paused", "found"),
    [("q.x", {"q.x"}, "q.x"), ("q.x", {"q"}, "q"), ("q.x", {"q.y", "r"}, None), (None, {"q"}, None), ("q", {"q"}, "q")],
)
def test_an_operation_is_paused_by_its_name_or_its_queue_s(task: Any, paused: set[str], found: str | None) -> None:
    assert paused_in({"task": task}, paused) == found

"""JSON to dataclasses and back."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaia.codec import ARTIFACT, INLINE_LIMIT_BYTES, Artifact, Body, Mismatch, content, decode, encode
from gaia.errors import ConnectFailed, RemoteError
from gaia.outcome import Outcome
from tests.support import contracts

KINDS = sorted({*contracts.calls(), *contracts.results()}, key=lambda kind: kind.__qualname__)


class Shelf:
    """Large bodies in memory."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    def session(self) -> "Shelf":
        return self

    def put(self, body: bytes) -> Artifact:
        artifact = Artifact(f"{len(self.bodies):032x}", len(body), "0" * 64)
        self.bodies[artifact.id] = body
        return artifact

    def refer(self, artifact: Artifact) -> Artifact:
        assert artifact.id in self.bodies
        return artifact

    def get(self, artifact: Artifact) -> bytes:
        return self.bodies[artifact.id]

    def discard(self) -> None:
        self.bodies.clear()


@dataclass(frozen=True)
class Item:
    x: int
    note: str = "none"


@dataclass(frozen=True)
class Outcomes:
    items: tuple[Outcome[Item], ...]


@dataclass(frozen=True)
class Everything:
    name: str
    flag: bool = False
    number: float = 0.0
    maybe: int | None = None
    choice: Literal["a", "b", 1] = "a"
    items: tuple[Item, ...] = ()
    pair: tuple[str, int] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    by_name: Mapping[str, Item] = field(default_factory=dict)
    body: bytes = b""
    large: Body | None = None
    anything: Any = None


def mismatch(given: object, kind: type[Any] = Everything) -> tuple[str, str]:
    with pytest.raises(Mismatch) as caught:
        decode(kind, given)
    return caught.value.path, caught.value.reason


def refused(value: object) -> tuple[str, str]:
    with pytest.raises(Mismatch) as caught:
        encode(value)
    return caught.value.path, caught.value.reason


# --- round trips


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
@settings(max_examples=contracts.EXAMPLES)
@given(data=st.data())
def test_every_contract_survives_the_wire_and_has_again_what_was_left_out(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(contracts.any_of(kind))
    sent = encode(value)
    back = decode(kind, json.loads(json.dumps(sent)))
    assert back == value
    for each in fields(kind):
        if each.name not in sent:
            assert getattr(back, each.name) == getattr(value, each.name)


def test_nothing_but_the_needed_fields_travels() -> None:
    assert encode(Everything("n")) == {"name": "n"}
    assert encode(Everything("n", number=0.5, items=(Item(1),))) == {"name": "n", "number": 0.5, "items": [{"x": 1}]}


def test_a_value_equal_to_its_default_and_of_another_type_is_not_taken_for_it() -> None:
    assert refused(Everything("n", flag=0)) == ("flag", "must be true or false, got int")  # type: ignore[arg-type]
    assert encode(Everything("n", number=0)) == {"name": "n", "number": 0.0}


@given(value=contracts.JSON)
def test_any_json_value_passes_as_it_is(value: Any) -> None:
    assert decode(Everything, encode(Everything("n", anything=value))).anything == value


def test_tuples_in_json_values_become_arrays() -> None:
    assert encode(Everything("n", anything={"a": (1, (2,))}))["anything"] == {"a": [1, [2]]}


# --- what does not fit


@pytest.mark.parametrize(
    ("given", "path", "reason"),
    [
        ({}, "name", "is missing"),
        ({"name": 1}, "name", "must be a string, got int"),
        ({"name": None}, "name", "must be a string, got null"),
        ({"name": "n", "flag": 1}, "flag", "must be true or false, got int"),
        ({"name": "n", "flag": "true"}, "flag", "must be true or false, got a string"),
        ({"name": "n", "maybe": True}, "maybe", "must be an integer, got a boolean"),
        ({"name": "n", "maybe": 1.0}, "maybe", "must be an integer, got float"),
        ({"name": "n", "maybe": "1"}, "maybe", "must be an integer, got a string"),
        ({"name": "n", "number": True}, "number", "must be a number, got a boolean"),
        ({"name": "n", "number": "1"}, "number", "must be a number, got a string"),
        ({"name": "n", "number": math.nan}, "number", "must be a finite number"),
        ({"name": "n", "number": math.inf}, "number", "must be a finite number"),
        ({"name": "n", "number": 10**400}, "number", "must be a finite number"),
        ({"name": "n", "choice": "c"}, "choice", "must be one of a, b, 1"),
        ({"name": "n", "choice": True}, "choice", "must be one of a, b, 1"),
        ({"name": "n", "choice": []}, "choice", "must be one of a, b, 1"),
        ({"name": "n", "items": "x"}, "items", "must be an array, got a string"),
        ({"name": "n", "items": {}}, "items", "must be an array, got an object"),
        ({"name": "n", "items": [{"x": 1}, {}]}, "items[1].x", "is missing"),
        ({"name": "n", "items": [1]}, "items[0]", "must be an object, got int"),
        ({"name": "n", "items": [{"x": 1, "y": 2}]}, "items[0].y", "is unknown; known are note, x"),
        ({"name": "n", "pair": ["a"]}, "pair", "must have 2 items, got 1"),
        ({"name": "n", "pair": ["a", "b"]}, "pair[1]", "must be an integer, got a string"),
        ({"name": "n", "headers": {"accept": 1}}, "headers.accept", "must be a string, got int"),
        ({"name": "n", "headers": [["a", "b"]]}, "headers", "must be a mapping, got an array"),
        ({"name": "n", "by_name": {"k": {"x": "1"}}}, "by_name.k.x", "must be an integer, got a string"),
        ({"name": "n", "body": "%%%"}, "body", "must be base64 text"),
        ({"name": "n", "body": "é"}, "body", "must be base64 text"),
        ({"name": "n", "body": "YQ"}, "body", "must be base64 text"),
        ({"name": "n", "body": [1]}, "body", "must be base64 text, got an array"),
        ({"name": "n", "anything": {"a": [math.nan]}}, "anything.a[0]", "must be a finite number"),
        ({"name": "n", "nmae": 1}, "nmae", ""),
        ([], "", "must be an object, got an array"),
        (None, "", "must be an object, got null"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(given: object, path: str, reason: str) -> None:
    found = mismatch(given)
    assert found[0] == path
    assert found[1].startswith(reason)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Everything(1), "name"),  # type: ignore[arg-type]
        (Everything("n", number=math.nan), "number"),
        (Everything("n", items=(Item(1), 2)), "items[1]"),  # type: ignore[arg-type]
        (Everything("n", items=(Item("1"),)), "items[0].x"),  # type: ignore[arg-type]
        (Everything("n", headers={"a": None}), "headers.a"),  # type: ignore[dict-item]
        (Everything("n", headers={1: "a"}), "headers.1"),  # type: ignore[dict-item]
        (Everything("n", body="text"), "body"),  # type: ignore[arg-type]
        (Everything("n", anything=object()), "anything"),
        (Everything("n", anything={"a": {2, 3}}), "anything.a"),
        (Everything("n", anything={"a": b"bytes"}), "anything.a"),
        (Everything("n", anything={None: 1}), "anything.None"),
    ],
)
def test_what_cannot_be_sent_is_named_by_its_path(value: Everything, path: str) -> None:
    assert refused(value)[0] == path


@pytest.mark.parametrize("digits", [3000, 5000])
def test_an_integer_of_thousands_of_digits_is_refused_on_both_sides(digits: int) -> None:
    value = -(10**digits)
    assert refused(Everything("n", maybe=value))[0] == "maybe"
    assert refused(Everything("n", anything=[value]))[0] == "anything[0]"
    assert mismatch({"name": "n", "maybe": value})[0] == "maybe"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


def test_a_value_nested_beyond_the_stack_is_a_mismatch() -> None:
    path, reason = refused(Everything("n", anything=nested(5000)))
    assert path.startswith("anything.a[0].a")
    assert reason == "is nested too deeply"
    assert mismatch({"name": "n", "anything": nested(5000)}) == (path, reason)


def test_a_path_is_cut_where_the_sender_made_it_long() -> None:
    path, _ = mismatch({"name": "n", "headers": {"x" * 1_000_000: 1}})
    assert path.startswith("headers.xxx")
    assert len(path) <= 200
    assert len(mismatch({"name": "n", "y" * 1_000_000: 1})[0]) <= 200


def test_a_value_that_is_no_dataclass_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(TypeError):
        encode({1})


# --- newer writers


def test_a_lenient_reader_ignores_unknown_fields_at_every_depth() -> None:
    given = {"name": "n", "new": 1, "items": [{"x": 1, "new": 2}], "by_name": {"k": {"x": 3, "new": 4}}}
    assert decode(Everything, given, lenient=True) == Everything("n", items=(Item(1),), by_name={"k": Item(3)})
    assert mismatch(given)[0] == "new"


def test_a_lenient_reader_ignores_unknown_fields_of_a_reference() -> None:
    shelf = Shelf()
    artifact = shelf.put(b"large")
    given = {"name": "n", "body": {ARTIFACT: {"id": artifact.id, "size_bytes": 5, "sha256": artifact.sha256, "new": 1}}}
    assert decode(Everything, given, shelf, lenient=True).body == b"large"
    with pytest.raises(Mismatch):
        decode(Everything, given, shelf)


def test_a_lenient_reader_still_wants_every_needed_field_and_type() -> None:
    for sent in ({"new": 1}, {"name": 1}):
        with pytest.raises(Mismatch):
            decode(Everything, sent, lenient=True)


# --- bodies


@pytest.mark.parametrize("body", [b"", b"\0\xff", bytearray(b"ab"), memoryview(b"ab"), b"x" * INLINE_LIMIT_BYTES])
def test_a_small_body_travels_as_base64(body: bytes) -> None:
    shelf = Shelf()
    sent = encode(Everything("n", body=body), shelf)
    assert not shelf.bodies
    assert decode(Everything, sent, shelf).body == bytes(body)


def test_a_large_body_travels_as_a_reference() -> None:
    shelf, body = Shelf(), b"x" * (INLINE_LIMIT_BYTES + 1)
    sent = encode(Everything("n", body=body), shelf)
    assert sent["body"][ARTIFACT]["size_bytes"] == len(body)
    assert decode(Everything, sent, shelf).body == body


def test_without_a_store_a_large_body_stays_in_the_message() -> None:
    body = b"x" * (INLINE_LIMIT_BYTES + 1)
    assert decode(Everything, encode(Everything("n", body=body))).body == body


def test_a_body_that_was_put_before_travels_as_its_reference_and_comes_back_as_bytes() -> None:
    shelf = Shelf()
    value = Everything("n", large=shelf.put(b"put before"))
    back = decode(Everything, encode(value, shelf), shelf)
    assert back.large == b"put before"
    assert len(shelf.bodies) == 1


@pytest.mark.parametrize("body", [b"", b"small", b"x" * (INLINE_LIMIT_BYTES + 1)])
def test_bytes_are_a_body_too(body: bytes) -> None:
    shelf = Shelf()
    assert decode(Everything, encode(Everything("n", large=body), shelf), shelf).large == body


def test_plain_bytes_are_no_artifact() -> None:
    artifact = Shelf().put(b"put before")
    assert refused(Everything("n", body=artifact))[0] == "body"  # type: ignore[arg-type]
    assert content(b"bytes") == b"bytes"
    with pytest.raises(TypeError):
        content(artifact)


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ({}, "body.id"),
        ({"id": 1, "size_bytes": 1, "sha256": "0"}, "body.id"),
        ({"id": "0", "size_bytes": 1, "sha256": "0", "path": "/etc/passwd"}, "body.path"),
        ("0", "body"),
        (None, "body"),
    ],
)
def test_a_malformed_reference_is_refused(reference: object, path: str) -> None:
    with pytest.raises(Mismatch) as caught:
        decode(Everything, {"name": "n", "body": {ARTIFACT: reference}}, Shelf())
    assert caught.value.path == path


@pytest.mark.parametrize("bad", [Artifact(7, 1, ""), Artifact("0", "1", ""), Artifact("0", 1, None)])  # type: ignore[arg-type]
def test_a_reference_made_of_wrong_types_is_refused_by_its_field(bad: Artifact) -> None:
    path, reason = refused(Everything("n", large=bad))
    assert path in {"large.id", "large.size_bytes", "large.sha256"}
    assert reason.startswith("must be")


def test_bodies_stored_for_a_message_that_fails_are_discarded() -> None:
    shelf = Shelf()
    with pytest.raises(Mismatch):
        encode(Everything("n", body=bytes(INLINE_LIMIT_BYTES + 1), anything=object()), shelf)
    assert shelf.bodies == {}


def test_a_reference_with_more_beside_it_is_no_reference() -> None:
    given = {"name": "n", "body": {ARTIFACT: {"id": "0", "size_bytes": 1, "sha256": "0"}, "more": 1}}
    assert mismatch(given) == ("body", "must be base64 text, got an object")


def test_without_a_store_a_reference_is_a_mismatch() -> None:
    given = {"name": "n", "body": {ARTIFACT: {"id": "0", "size_bytes": 1, "sha256": "0"}}}
    assert mismatch(given) == ("body", "is an artifact, and no artifact store is at hand")


def test_an_object_in_a_json_value_is_never_taken_for_a_reference() -> None:
    value = {ARTIFACT: {"id": "0" * 32, "size_bytes": 1, "sha256": "0"}}
    assert decode(Everything, encode(Everything("n", anything=value)), Shelf()).anything == value


def test_an_outcome_carries_a_result_or_an_error_of_ours() -> None:
    kind = Outcome[Item]
    for each in (Outcome(ok=True, result=Item(1)), Outcome[Item](ok=False, error=ConnectFailed("h", "refused"))):
        sent = json.loads(json.dumps(encode(Outcomes((each,)))))
        (found,) = decode(Outcomes, sent).items
        assert (found.ok, found.result) == (each.ok, each.result)
        assert repr(found.error) == repr(each.error)
    with pytest.raises(Mismatch, match="must be an integer"):
        decode(kind, {"ok": True, "result": {"x": "1"}})


def test_an_error_of_another_version_is_a_remote_error() -> None:
    (found,) = decode(Outcomes, {"items": [{"ok": False, "error": {"kind": "FromTheFuture", "arguments": [1]}}]}).items
    assert repr(found.error) == repr(RemoteError("FromTheFuture", "1"))


@pytest.mark.parametrize("error", [{}, {"kind": 1, "arguments": []}, {"kind": "X", "arguments": "y"}, "X", None, []])
def test_what_is_no_error_is_refused(error: object) -> None:
    if error is None:
        assert decode(Outcomes, {"items": [{"ok": False, "error": None}]}).items[0].error is None
        return
    with pytest.raises(Mismatch, match="error"):
        decode(Outcomes, {"items": [{"ok": False, "error": error}]})

"""What holds for every contract."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaia import redaction
from gaia.contracts import api, browser, files, network, process
from gaia.contracts.base import CALLS, Call, RetryPolicy, is_unicode
from gaia.errors import ConnectFailed, InvalidCall, TlsFailed
from tests.support import contracts

CALL_KINDS = contracts.calls()
by_name = pytest.mark.parametrize("kind", CALL_KINDS, ids=lambda kind: kind.__qualname__)

PROGRAM = contracts.PROGRAM
SESSION = contracts.SESSION
SMALLEST: dict[type[Call[Any]], dict[str, Any]] = {
    api.Request: {"url": "http://h/"},
    api.RequestMany: {"calls": (api.Request(url="http://h/"),)},
    api.Download: {"url": "http://h/"},
    api.Stats: {},
    api.Health: {},
    files.Append: {"path": "data:x", "body": b""},
    files.Batch: {"steps": (files.Step(stat=files.Stat("data:x")),)},
    files.Checksum: {"path": "data:x"},
    files.Copy: {"path": "data:x", "target": "data:y"},
    files.Delete: {"path": "data:x"},
    files.Health: {},
    files.List: {"path": "data:x"},
    files.MakeDir: {"path": "data:x"},
    files.Move: {"path": "data:x", "target": "data:y"},
    files.Pack: {"path": "data:x", "target": "data:y"},
    files.ParseCsv: {"path": "data:x"},
    files.ParseJson: {"path": "data:x"},
    files.ParseJsonl: {"path": "data:x"},
    files.ParseXml: {"path": "data:x"},
    files.ReadRange: {"path": "data:x"},
    files.Stat: {"path": "data:x"},
    files.Stats: {},
    files.Stream: {"path": "data:x"},
    files.Tail: {"path": "data:x"},
    files.Unpack: {"path": "data:x", "target": "data:y"},
    files.Walk: {"path": "data:x"},
    browser.Act: {"id": SESSION, "steps": ()},
    browser.Capture: {"html": "<p>"},
    browser.Close: {"id": SESSION},
    browser.CloseTab: {"id": SESSION, "tab": "t"},
    browser.Content: {"id": SESSION},
    browser.Cookies: {"id": SESSION},
    browser.Evaluate: {"id": SESSION, "expression": "1"},
    browser.Extract: {"id": SESSION, "extract": {"a": "b"}},
    browser.Health: {},
    browser.List: {},
    browser.LoadExtension: {"id": SESSION, "extension": b""},
    browser.Navigate: {"id": SESSION, "url": "http://h/"},
    browser.Open: {},
    browser.OpenTab: {"id": SESSION},
    browser.Pdf: {"id": SESSION},
    browser.Screenshot: {"id": SESSION},
    browser.Stats: {},
    browser.Status: {"id": SESSION},
    files.Read: {"path": "data:x"},
    files.Write: {"path": "data:x", "body": b""},
    network.AcquireConnection: {"host": "a.example"},
    network.FlushDns: {},
    network.Health: {},
    network.Ping: {"host": "a.example"},
    network.ProbeHttp: {"url": "http://h/"},
    network.ProbeTcp: {"host": "a.example", "port": 443},
    network.ProbeTls: {"host": "a.example"},
    network.ReleaseConnection: {"lease": "0123456789abcdef@a.example"},
    network.Resolve: {"name": "a.example"},
    network.ResolveMany: {"names": ("a.example",)},
    network.Stats: {},
    network.Throttle: {"size_bytes": 1},
    process.Cleanup: {},
    process.Health: {},
    process.Kill: {"id": PROGRAM},
    process.List: {},
    process.Output: {"id": PROGRAM},
    process.Run: {"argv": ("/bin/true",)},
    process.Signal: {"id": PROGRAM, "signal": 15},
    process.Start: {"argv": ("/bin/true",)},
    process.Stats: {},
    process.Status: {"id": PROGRAM},
    process.Terminate: {"id": PROGRAM},
    process.Wait: {"id": PROGRAM},
    process.Write: {"id": PROGRAM},
}

HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 10**5000, float("nan"), float("inf"), "", "\0", "a\r\nb: c", "\ud800", "x" * 1_000_000,
    b"bytes", (), ("\0",), (1, None), [], ["\0"], {}, {"a": 1}, {1: "a"}, {"a\r\n": "b\0"}, {" " * 1_000_000: "y"},
    object(), timedelta(days=-1), lambda: None, Exception, ..., {1, 2}, range(3), memoryview(b"x"),
)  # fmt: skip


def refusal(make: Any) -> InvalidCall:
    with pytest.raises(InvalidCall) as caught:
        make()
    return caught.value


def refusal_or_none(make: Any) -> InvalidCall | None:
    try:
        make()
    except InvalidCall as error:
        return error
    return None


def sent(call: Call[Any]) -> None:
    repr(call)
    call.fields_json()


def test_every_contract_is_covered_here() -> None:
    assert set(SMALLEST) == set(CALL_KINDS)


@by_name
def test_an_operation_is_named_by_queue_and_verb(kind: type[Call[Any]]) -> None:
    queue, _, verb = kind.OPERATION.partition(".")
    assert queue == kind.QUEUE
    assert queue in contracts.SUBSYSTEMS
    assert verb.replace("_", "") == kind.__name__.lower()
    assert CALLS[kind.OPERATION] is kind


@by_name
def test_the_smallest_call_travels_with_nothing_but_its_needed_fields(kind: type[Call[Any]]) -> None:
    assert set(kind(**SMALLEST[kind]).fields_json()) == set(SMALLEST[kind]) - {"body"} | (
        {"body"} if "body" in SMALLEST[kind] else set()
    )


@by_name
def test_a_call_is_frozen_and_equal_by_its_fields(kind: type[Call[Any]]) -> None:
    call = kind(**SMALLEST[kind])
    assert call == kind(**SMALLEST[kind])
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.anything = 1  # type: ignore[attr-defined]
    for name in SMALLEST[kind]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(call, name, None)


@by_name
@settings(max_examples=contracts.EXAMPLES)
@given(data=st.data())
def test_a_call_that_travelled_is_the_call(kind: type[Call[Any]], data: st.DataObject) -> None:
    call = data.draw(contracts.any_of(kind))
    assert kind.from_json(json.loads(json.dumps(call.fields_json()))) == call


@by_name
def test_a_wrong_value_is_an_invalid_call_that_names_the_field(kind: type[Call[Any]]) -> None:
    """At the latest when it is sent; never another error, whatever the value."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]  # calls are dataclasses
    for name, value in itertools.product(names, HOSTILE):
        error = refusal_or_none(lambda name=name, value=value: sent(kind(**{**SMALLEST[kind], name: value})))
        if error is not None:
            assert error.operation == kind.OPERATION
            assert error.field.split(".")[0].split("[")[0] in names
            assert len(str(error)) < 1000


@by_name
@settings(max_examples=contracts.EXAMPLES)
@given(data=st.data())
def test_foreign_json_gives_a_call_or_an_invalid_call(kind: type[Call[Any]], data: st.DataObject) -> None:
    names = st.sampled_from([*kind.__dataclass_fields__, "unknown"])  # type: ignore[attr-defined]
    fields = data.draw(st.dictionaries(names, contracts.JSON))
    valid = kind(**SMALLEST[kind]).fields_json()
    error = refusal_or_none(lambda: kind.from_json({**valid, **fields}))
    assert error is None or error.operation == kind.OPERATION


@by_name
def test_every_duration_may_be_a_timedelta(kind: type[Call[Any]]) -> None:
    for name in [name for name in get_type_hints(kind) if name.endswith("_s")]:
        call = kind(**SMALLEST[kind], **{name: timedelta(milliseconds=1500)})
        assert getattr(call, name) == 1.5
        assert call.fields_json()[name] == 1.5
        assert refusal(lambda name=name: kind(**SMALLEST[kind], **{name: timedelta(days=-1)})).field == name


@pytest.mark.parametrize("kind", [kind for kind in CALL_KINDS if "timeout_s" in get_type_hints(kind)])
def test_a_timeout_is_bounded(kind: type[Call[Any]]) -> None:
    for seconds in (0, -1, 0.0, 1e9, float("nan"), float("inf"), "1", 10**4000):
        error = refusal(lambda seconds=seconds: kind(**SMALLEST[kind], timeout_s=seconds))
        assert error.field == "timeout_s"
        assert error.reason.startswith("must be a number from 0.001 to ")


@by_name
def test_secret_fields_are_those_that_hold_headers_bodies_and_credentials(kind: Any) -> None:
    hinted = {"url", "headers", "auth", "body", "json", "data", "params", "env", "argv", "stdin", "html"}
    hinted |= {"key", "query", "expression", "extension"}
    for each in dataclasses.fields(kind):
        assert (redaction.MARK in each.metadata) == (each.name in hinted), each.name


@by_name
def test_unknown_and_missing_fields_are_named(kind: type[Call[Any]]) -> None:
    valid = kind(**SMALLEST[kind]).fields_json()
    assert refusal(lambda: kind.from_json({**valid, "nonsense": 1})).field == "nonsense"
    for name in valid:
        if name != "html":
            without = {key: value for key, value in valid.items() if key != name}
            assert refusal(lambda without=without: kind.from_json(without)) == refusal_like(kind, name)


class refusal_like:  # noqa: N801 - reads as what is compared
    """Equal to an error of that operation and field."""

    def __init__(self, kind: type[Call[Any]], field: str) -> None:
        self.expected = (kind.OPERATION, field)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InvalidCall) and (other.operation, other.field) == self.expected

    def __hash__(self) -> int:
        return hash(self.expected)


def test_an_error_of_a_call_shows_no_value() -> None:
    error = refusal(lambda: api.Request("http://h/", timeout_s="hunter22"))  # type: ignore[arg-type]
    assert "hunter22" not in str(error)


@given(text=st.text(st.characters()))
def test_text_is_unicode_if_it_can_be_encoded(text: str) -> None:
    try:
        text.encode()
        encodes = True
    except UnicodeEncodeError:
        encodes = False
    assert is_unicode(text) == encodes


# --- retries


def test_pauses_double_up_to_the_cap() -> None:
    policy = RetryPolicy(attempts=9, base_s=0.5, cap_s=3.0)
    assert [policy.pause_s(attempt, draw=1.0) for attempt in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert policy.pause_s(10**9, draw=1.0) == 3.0
    assert policy.pause_s(3, draw=0.0) == 0.0


@given(attempt=st.integers(1, 10**6))
def test_a_pause_is_drawn_from_nought_to_its_ceiling(attempt: int) -> None:
    policy = RetryPolicy(attempts=3)
    assert 0 <= policy.pause_s(attempt) <= policy.pause_s(attempt, draw=1.0) <= policy.cap_s


@pytest.mark.parametrize("method", sorted(api.METHODS))
def test_only_idempotent_requests_are_retried_and_only_after_transient_errors(method: str) -> None:
    call = api.Request("http://h/", method=method)
    assert call.may_retry(ConnectFailed("h", "refused")) == (
        method in {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
    )
    assert not call.may_retry(TlsFailed("h", "expired"))


def test_a_page_and_a_program_are_never_repeated() -> None:
    assert not browser.Capture(html="<p>").may_retry(ConnectFailed("h", "refused"))
    assert process.Run(("/bin/true",)).RETRY.attempts == 1


def test_a_mapping_of_any_kind_is_taken() -> None:
    class Headers(Mapping[str, str]):
        def __getitem__(self, name: str) -> str:
            return {"a": "b"}[name]

        def __iter__(self) -> Any:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    assert api.Request("http://h/", headers=Headers()).fields_json()["headers"] == {"a": "b"}

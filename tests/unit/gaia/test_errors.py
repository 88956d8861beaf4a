"""Errors that cross the queue."""

import copy
import json
import pickle
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaia import errors
from gaia.errors import REGISTRY, GaiaError, NotReady, Permanent, RemoteError, TimedOut, Transient, revive

SAMPLES = {str: "text", int: 7, float: 1.5}
CLASSES = sorted(REGISTRY.values(), key=lambda kind: kind.__name__)


def sample(kind: type[GaiaError]) -> GaiaError:
    return kind(*(SAMPLES[each.type] for each in fields(kind)))  # type: ignore[index]  # types, no strings


def everything(error: BaseException) -> tuple[object, ...]:
    return type(error), error.args, str(error), repr(error)


def through_pickle(error: GaiaError) -> Any:
    return pickle.loads(pickle.dumps(error))


def through_json(error: GaiaError) -> GaiaError:
    return revive(type(error).__name__, json.loads(json.dumps(error.args)))


@pytest.mark.parametrize("way", [through_pickle, copy.copy, copy.deepcopy, through_json])
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives(kind: type[GaiaError], way: Any) -> None:
    error = sample(kind)
    assert everything(way(error)) == everything(error)


def test_notes_and_causes_survive_pickle_as_far_as_python_carries_them() -> None:
    error = TimedOut("api.request", 3)
    error.add_note("while testing")
    assert through_pickle(error).__notes__ == ["while testing"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_fields_are_the_arguments_and_stand_in_repr(kind: type[GaiaError]) -> None:
    error = sample(kind)
    assert error.args == tuple(getattr(error, each.name) for each in fields(kind))
    for each in fields(kind):
        assert f"{each.name}={getattr(error, each.name)!r}" in repr(error)
    assert repr(error).startswith(f"{kind.__name__}(")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_sentence_holds_a_field(kind: type[GaiaError]) -> None:
    if fields(kind):
        assert any(each in str(sample(kind)) for each in ("text", "7", "1.5"))


def test_every_error_is_either_transient_or_permanent() -> None:
    bases = {GaiaError, Transient, Permanent}
    for kind in CLASSES:
        if kind not in bases:
            assert issubclass(kind, Transient) != issubclass(kind, Permanent)


def test_names_are_unique_so_a_name_is_enough() -> None:
    heap, names = [GaiaError], []
    while heap:
        kind = heap.pop()
        if kind.__module__ == errors.__name__:
            names.append(kind.__name__)
        heap.extend(kind.__subclasses__())
    assert len(names) == len(set(names))
    assert set(names) == set(REGISTRY)


def test_fields_hold_json_values_alone() -> None:
    for kind in CLASSES:
        assert {each.type for each in fields(kind)} <= set(SAMPLES)


def test_not_ready_is_a_timeout_error() -> None:
    error = NotReady("id", 1.5)
    assert isinstance(error, TimeoutError)
    assert error.args == ("id", 1.5)
    assert (error.errno, error.strerror) == (None, None)
    with pytest.raises(TimeoutError):
        raise error


def test_two_equal_errors_are_two() -> None:
    first, second = TimedOut("x", 1), TimedOut("x", 1)
    assert first != second
    assert len({first, second}) == 2


def test_revive_takes_an_integer_for_a_float() -> None:
    assert everything(revive("TimedOut", ["api.request", 3])) == everything(TimedOut("api.request", 3.0))


@pytest.mark.parametrize(
    ("kind", "arguments", "detail"),
    [
        ("ValueError", ["bad"], "bad"),
        ("ValueError", [], ""),
        ("ValueError", "bad", "bad"),
        ("NewerError", ["a", 1, None, {"b": 2}], "a, 1, None, {'b': 2}"),
        ("TimedOut", ["api.request"], "api.request"),
        ("TimedOut", ["api.request", 3, 4], "api.request, 3, 4"),
        ("TimedOut", ["api.request", "soon"], "api.request, soon"),
        ("TimedOut", ["api.request", True], "api.request, True"),
        ("TimedOut", [None, 3.0], "None, 3.0"),
        ("TimedOut", "not done", "not done"),
        ("Transient", ["x"], "x"),
        ("", [], ""),
        ("__init__", ["x"], "x"),
        ("Exception", ["x"], "x"),
    ],
)
def test_what_is_no_error_of_this_version_becomes_a_remote_error(kind: str, arguments: Any, detail: str) -> None:
    found = revive(kind, arguments)
    assert everything(found) == everything(RemoteError(kind, detail))


@given(
    kind=st.sampled_from(sorted(REGISTRY)) | st.text(),
    arguments=st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()))
    | st.text(),
)
def test_revive_never_fails_and_what_it_gives_can_be_shown(kind: str, arguments: Any) -> None:
    found = revive(kind, arguments)
    str(found)
    repr(found)
    assert isinstance(found, GaiaError)

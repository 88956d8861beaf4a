"""The header of a message, and the options that both sides share."""

import json
import math
from typing import Any

import pytest
from celery.app.defaults import DEFAULTS
from hypothesis import given
from hypothesis import strategies as st

from gaia import wire
from gaia.contracts.base import CALLS
from gaia.errors import InvalidCall, NewerPayload
from gaia.wire import Envelope
from tests.support import contracts

TIMES = st.none() | st.floats(0, wire.LAST_TIME_S)


@given(envelope=st.builds(Envelope, published_at=TIMES, deadline=TIMES, key=st.none() | st.text()))
def test_an_envelope_survives_the_wire(envelope: Envelope) -> None:
    header = json.loads(json.dumps(envelope.header()))
    assert Envelope.read("api.request", header) == envelope
    assert wire.times(header) == (envelope.published_at, envelope.deadline)


@pytest.mark.parametrize("header", [None, {}, {"v": 1}, {"at": None, "deadline": None, "key": None}, {"unknown": [1]}])
def test_every_part_has_a_default(header: Any) -> None:
    assert Envelope.read("api.request", header) == Envelope()


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ([], "gaia"),
        ("x", "gaia"),
        (1, "gaia"),
        ({"v": "1"}, "gaia.v"),
        ({"v": 1.0}, "gaia.v"),
        ({"v": True}, "gaia.v"),
        ({"v": None}, "gaia.v"),
        ({"key": 1}, "gaia.key"),
        ({"key": ["a"]}, "gaia.key"),
        ({"at": "now"}, "gaia.at"),
        ({"at": True}, "gaia.at"),
        ({"deadline": {}}, "gaia.deadline"),
        ({"deadline": math.nan}, "gaia.deadline"),
        ({"deadline": math.inf}, "gaia.deadline"),
        ({"deadline": -math.inf}, "gaia.deadline"),
        ({"deadline": 1e300}, "gaia.deadline"),
        ({"deadline": 10**400}, "gaia.deadline"),
    ],
)
def test_a_header_of_another_form_is_an_invalid_call(header: Any, field: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        Envelope.read("api.request", header)
    assert (caught.value.operation, caught.value.field) == ("api.request", field)


@given(header=contracts.JSON | st.dictionaries(st.sampled_from(["at", "deadline"]), contracts.JSON))
def test_the_times_of_any_header_are_read_without_failing(header: Any) -> None:
    for each in wire.times(header):
        assert each is None or math.isfinite(each)


def test_a_newer_payload_says_both_versions() -> None:
    with pytest.raises(NewerPayload) as caught:
        Envelope.read("api.request", {"v": wire.PAYLOAD_VERSION + 1, "at": "of a form to come"})
    assert (caught.value.version, caught.value.known) == (wire.PAYLOAD_VERSION + 1, wire.PAYLOAD_VERSION)


def test_every_contract_has_one_of_the_queues() -> None:
    for kind in contracts.calls():
        assert kind.QUEUE in wire.QUEUES
        assert CALLS[kind.OPERATION] is kind


def test_celery_knows_every_shared_option() -> None:
    assert set(wire.SHARED_OPTIONS) <= set(DEFAULTS)


@pytest.mark.parametrize(
    "envelope",
    [
        wire.Envelope(),
        wire.Envelope(published_at=1763886000.25, deadline=1763886900.0),
        wire.Envelope(published_at=1e16, deadline=5e-324),
        wire.Envelope(published_at=1.0, deadline=2.0, key='a "key"', submitted_at=0.5),
    ],
)
def test_the_text_is_the_headers_json(envelope: wire.Envelope) -> None:
    assert json.loads(envelope.text()) == envelope.header()

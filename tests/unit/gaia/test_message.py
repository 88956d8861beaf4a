"""The text of a message."""

import json
import re
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from kombu.transport.virtual import Message

from gaia import message, wire
from gaia.contracts import api, files
from gaia.contracts.base import Call
from gaia.errors import PayloadTooLarge


def text_of(call: Call[Any], **options: Any) -> dict[str, Any]:
    given = {
        "call_id": message.new_id(),
        "envelope": wire.Envelope(published_at=1.0, deadline=2.0),
        "priority": 0,
        "expires_at": None,
        "stored": True,
        **options,
    }
    found: dict[str, Any] = json.loads(message.text_of(call, call.fields_json(), **given))
    return found


def test_ids_are_random_uuids_of_version_4() -> None:
    ids = {message.new_id() for _ in range(1000)}
    assert len(ids) == 1000
    for each in ids:
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", each)


def test_a_message_has_what_celery_writes() -> None:
    """Compared with the one that Celery itself makes of the same call."""
    app = Celery("producer", set_as_current=False, broker="memory://")
    app.conf.update(wire.SHARED_OPTIONS)
    call = api.Request("http://h/ü", headers={"a": '"%s"\\'})
    headers, properties, body, _ = app.amqp.as_task_v2(
        "11111111-1111-4111-8111-111111111111", call.OPERATION, kwargs=call.fields_json(), argsrepr="()", kwargsrepr=""
    )
    ours = text_of(call, call_id="11111111-1111-4111-8111-111111111111")
    assert set(headers) - set(ours["headers"]) <= {"stamped_headers"}
    for name, value in headers.items():
        if name != "origin":
            assert ours["headers"].get(name) == value, name
    assert ours["properties"]["correlation_id"] == properties["correlation_id"]
    assert json.loads(b64decode(ours["body"])) == json.loads(json.dumps(body))


def test_kombu_reads_it() -> None:
    class Channel:
        def decode_body(self, body: str, encoding: str) -> bytes:
            assert encoding == "base64"
            return b64decode(body)

    call = files.Write("data:%s%d", b"\0\xff")
    found = Message(text_of(call), channel=Channel(), accept={"application/json"})
    args, kwargs, embed = found.decode()
    assert args == []
    assert files.Write.from_json(kwargs) == call
    assert set(embed) == {"callbacks", "errbacks", "chain", "chord"}


def test_properties_come_last_and_the_delivery_tag_is_the_id() -> None:
    """Where the fetch script looks for them."""
    call_id = message.new_id()
    call = files.Read("data:x")
    text = message.text_of(
        call,
        call.fields_json(),
        call_id=call_id,
        envelope=wire.Envelope(),
        priority=9,
        expires_at=None,
        stored=False,
    )
    assert text.endswith(f'"delivery_tag": "{call_id}"}}}}')
    found = json.loads(text)
    assert list(found)[-1] == "properties"
    assert found["properties"]["priority"] == 9
    assert found["headers"]["ignore_result"] is True


def test_an_expiry_is_a_time_in_utc() -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, 678000, UTC)
    expires = text_of(files.Read("data:x"), expires_at=at.timestamp())["headers"]["expires"]
    assert datetime.fromisoformat(expires) == at


def test_no_secret_is_in_what_is_shown_of_the_arguments() -> None:
    headers = text_of(api.Request("http://h/", auth=("me", "hunter22")))["headers"]
    assert (headers["argsrepr"], headers["kwargsrepr"]) == ("()", "")
    assert "hunter22" not in json.dumps(headers)


@pytest.mark.parametrize("character", ["a", "ü", "\N{PILE OF POO}"])
def test_a_message_over_the_limit_is_refused_by_its_size_as_json(character: str) -> None:
    each = len(json.dumps(character)) - 2
    room = wire.MESSAGE_LIMIT_BYTES - len(json.dumps({"url": "http://h/", "json": ""}))
    assert text_of(api.Request("http://h/", json=character * (room // each)))
    with pytest.raises(PayloadTooLarge) as caught:
        text_of(api.Request("http://h/", json=character * (room // each + 1)))
    assert caught.value.operation == "api.request"
    assert caught.value.limit_bytes == wire.MESSAGE_LIMIT_BYTES < caught.value.size_bytes


def test_a_lone_surrogate_in_a_json_value_travels_as_it_is() -> None:
    call = api.Request("http://h/", json={"half": "\ud83d"})
    fields = json.loads(b64decode(text_of(call)["body"]))[1]
    assert api.Request.from_json(fields) == call

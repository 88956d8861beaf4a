"""Answers for calls whose worker has gone."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from gaia import Gaia, errors, message, wire
from gaia.sticky import HolderId
from gaia.store import keys
from tasks.runtime.orphans import Orphans
from tests.support.probe import AskThing

THING = HolderId.new("a@h", "0" * 16).format()


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


@pytest.fixture
def gaia(fresh_url: str) -> Iterator[Gaia]:
    with Gaia(fresh_url) as found:
        yield found


@pytest.fixture
def orphans(client: redis.Redis) -> Orphans:
    return Orphans(client, client)


def text(call_id: str = "an-id", *, stored: bool = True, key: str | None = None) -> bytes:
    call = AskThing(THING)
    envelope = wire.Envelope(key=key)
    made: Any = message.text_of(
        call, call.fields_json(), call_id=call_id, envelope=envelope, priority=0, expires_at=None, stored=stored
    )
    return str(made).encode()


def test_a_caller_that_waits_gets_holder_lost(orphans: Orphans, gaia: Gaia, client: redis.Redis) -> None:
    with client.pubsub() as pubsub:
        pubsub.subscribe(keys.result("an-id"))
        pubsub.get_message(timeout=5)
        orphans.answer(text())
        announced = pubsub.get_message(timeout=5)
        pubsub.unsubscribe()
    assert announced is not None
    assert json.loads(announced["data"])["task_id"] == "an-id"
    with pytest.raises(errors.HolderLost) as found:
        gaia.pending("an-id", AskThing).get(timeout=5)
    assert found.value.id == THING
    assert 0 < client.ttl(keys.result("an-id")) <= wire.RESULT_TTL_S


def test_stock_celery_reads_the_answer(orphans: Orphans, fresh_url: str) -> None:
    orphans.answer(text())
    with Celery(backend=fresh_url, set_as_current=False) as stock:
        meta = stock.backend.get_task_meta("an-id")
    assert meta["status"] == "FAILURE"
    assert isinstance(meta["result"], errors.HolderLost)


def test_a_result_that_is_there_is_not_overwritten(orphans: Orphans, client: redis.Redis) -> None:
    client.set(keys.result("an-id"), "the result")
    orphans.answer(text())
    assert client.get(keys.result("an-id")) == b"the result"


def test_a_caller_that_cancelled_hears_of_that(orphans: Orphans, gaia: Gaia) -> None:
    gaia.cancel("an-id")
    gaia.cancel("untold")
    orphans.answer(text())
    orphans.answer(text("untold", stored=False))
    with pytest.raises(errors.Cancelled):
        gaia.pending("an-id", AskThing).get(timeout=5)
    assert gaia.dead.list() == []


def test_an_answer_under_a_key_is_kept_as_long_as_the_key(orphans: Orphans, client: redis.Redis) -> None:
    orphans.answer(text(key="k"))
    assert client.ttl(keys.result("an-id")) > wire.RESULT_TTL_S


def test_a_call_whose_result_nobody_wants_becomes_a_dead_letter(orphans: Orphans, gaia: Gaia) -> None:
    for _ in range(2):
        orphans.answer(text(stored=False))
    (letter,) = gaia.dead.list()
    assert (letter.id, letter.queue, letter.operation) == ("an-id", "probe", "probe.ask_thing")
    assert THING in letter.error
    assert gaia.dead.replay(letter.id)


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"[]", b'{"headers": {"id": 7}}', b"[" * 100_000, b"null"])
def test_garbage_is_put_among_the_dead_letters(orphans: Orphans, gaia: Gaia, garbage: bytes) -> None:
    orphans.answer(garbage)
    (letter,) = gaia.dead.list()
    assert letter.reason == "no message: it has no id"


def test_an_id_that_no_key_can_hold_is_put_among_the_dead_letters(orphans: Orphans, gaia: Gaia) -> None:
    orphans.answer(text("\\ud800"))
    (letter,) = gaia.dead.list()
    assert letter.reason == "no message: its id is no text"


def test_a_message_of_an_unknown_operation_is_answered_too(orphans: Orphans, gaia: Gaia) -> None:
    found = json.loads(text())
    found["headers"]["task"] = "what.is_this"
    orphans.answer(json.dumps(found).encode())
    with pytest.raises(errors.HolderLost):
        gaia.pending("an-id", AskThing).get(timeout=5)

"""Calls that a worker takes over as it goes, and answers itself."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from gaia import Gaia, message, wire
from gaia.sticky import HolderId, escape
from gaia.store import keys
from gaia.store.artifacts import Keeping
from tasks.runtime import identity
from tasks.runtime.entrusted import Entrusted
from tests.support.probe import AskThing, Seen

NODE = "going@here"
THING = HolderId.new(NODE, "0" * 16).format()
OWN_LIST = keys.own_queue(NODE)


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


@pytest.fixture
def entrusted(client: redis.Redis) -> Iterator[Entrusted]:
    before = list(identity._own)
    identity.begin(NODE)
    bodies = Keeping(None, 3600, 1 << 20, 1 << 20).store(client, keep_s=100)
    yield Entrusted(client, client, bodies, bodies, keep_s=500)
    identity._own[:] = before


def text(call_id: str, *, stored: bool = True, key: str | None = None) -> str:
    call = AskThing(THING)
    envelope = wire.Envelope(key=key)
    made: Any = message.text_of(
        call, call.fields_json(), call_id=call_id, envelope=envelope, priority=0, expires_at=None, stored=stored
    )
    return str(made)


def delayed(client: redis.Redis, call_id: str, queue: str = OWN_LIST, **options: Any) -> None:
    client.hset(keys.DELAYED_MESSAGES, call_id, f"{queue}\n{text(call_id, **options)}")
    client.zadd(keys.DELAYED, {call_id: time.time() + 1})


def test_calls_for_this_node_are_taken_over_and_no_others(entrusted: Entrusted, client: redis.Redis) -> None:
    delayed(client, "own")
    delayed(client, "urgent", f"{OWN_LIST}\x06\x169")
    client.zadd(keys.LATER + escape(NODE), {"own": time.time() + 1})
    delayed(client, "others", keys.own_queue("another@here"))
    delayed(client, "shared", "process")
    client.lpush(OWN_LIST, text("due"), text("unknown"))
    assert entrusted.take("process", ["own", "urgent", "others", "shared", "due", "gone"]) == 3
    for each in ("own", "urgent", "due"):
        entry: Any = client.hget(keys.DELAYED_MESSAGES, each)
        assert entry == b"process\n" + text(each).encode()
        assert client.zscore(keys.DELAYED, each) == pytest.approx(time.time() + 500, abs=60)
    assert client.zcard(keys.LATER + escape(NODE)) == 0
    assert client.lrange(OWN_LIST, 0, -1) == [text("unknown").encode()]
    for each in ("others", "shared"):
        assert client.zscore(keys.DELAYED, each) == pytest.approx(time.time() + 1, abs=60)


def test_an_answer_is_the_result_and_removes_the_call(
    entrusted: Entrusted, client: redis.Redis, fresh_url: str
) -> None:
    delayed(client, "own")
    with Gaia(fresh_url) as gaia:
        assert entrusted.answer("own", Seen("here"))
        assert gaia.pending("own", AskThing).get(timeout=5) == Seen("here")
    assert client.hlen(keys.DELAYED_MESSAGES) == client.zcard(keys.DELAYED) == 0
    assert not entrusted.answer("own", Seen("twice"))
    assert 0 < client.ttl(keys.result("own")) <= wire.RESULT_TTL_S


def test_a_call_that_has_ended_keeps_its_result(entrusted: Entrusted, client: redis.Redis) -> None:
    delayed(client, "own")
    client.set(keys.result("own"), json.dumps({"status": "REVOKED"}))
    assert entrusted.answer("own", Seen("late"))
    assert json.loads(client.get(keys.result("own")) or b"") == {"status": "REVOKED"}
    assert client.hlen(keys.DELAYED_MESSAGES) == 0


def test_nothing_is_stored_for_nobody_and_longer_under_a_key(entrusted: Entrusted, client: redis.Redis) -> None:
    delayed(client, "silent", stored=False)
    delayed(client, "keyed", key="k")
    assert entrusted.answer("silent", Seen("x"))
    assert entrusted.answer("keyed", Seen("x"))
    assert client.get(keys.result("silent")) is None
    assert wire.RESULT_TTL_S < client.ttl(keys.result("keyed")) <= keys.KEY_TTL_S

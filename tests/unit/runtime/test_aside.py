"""Calls that a pause holds up, and whose worker goes."""

import time
from collections.abc import Iterator

import pytest
import redis

from gaia.message import text_of
from gaia.sticky import HolderId, new_boot
from gaia.store import keys, nodes
from gaia.store.nodes import Node
from gaia.wire import Envelope
from tasks.runtime.aside import LOOKED_AT, Aside
from tests.support.probe import AskThing

LIST = keys.aside("probe")


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        found.sadd(keys.PAUSED, "probe")
        found.hset(keys.SWEEP, mapping={"beat": time.time(), "beat_from": 1.0})
        yield found


def put_aside(client: redis.Redis, node: str, boot: str, call_id: str) -> bytes:
    call = AskThing(HolderId.new(node, boot).format())
    text = text_of(
        call, call.fields_json(), call_id=call_id, envelope=Envelope(), priority=0, expires_at=None, stored=True
    )
    client.rpush(LIST, f"{keys.own_queue(node)}\n{text}")
    return text.encode()


def living(client: redis.Redis, name: str) -> str:
    boot = new_boot()
    nodes.beat(client, Node(name, boot, 1, "h", (), 1, "1", 0.0))
    return boot


def test_what_is_for_a_node_or_boot_that_has_gone_is_answered_and_removed(client: redis.Redis) -> None:
    boot = living(client, "x@h.example")
    client.rpush(LIST, 'probe\n{"a call": "of a shared queue"}')
    put_aside(client, "x@h.example", boot, "lives")
    gone = [put_aside(client, "x@h.example", new_boot(), "rebooted"), put_aside(client, "y@h", boot, "gone")]
    client.rpush(LIST, "gaia.node.y@h\ngarbage", "gaia.node.x@h%2Eexample\ngarbage of one that lives")
    answered: list[bytes] = []
    Aside(client, answered.append).look()
    assert answered == [*gone, b"garbage"]
    assert client.llen(LIST) == 3


def test_a_long_list_is_seen_whole_a_piece_at_a_time(client: redis.Redis) -> None:
    boot = living(client, "x@h")
    count = 3 * LOOKED_AT
    for number in range(count):
        put_aside(client, "y@h" if number % 3 == 0 else "x@h", boot, str(number))
    answered: list[bytes] = []
    aside = Aside(client, answered.append)
    aside.look()
    assert 0 < len(answered) < LOOKED_AT
    for _ in range(3):
        aside.look()
    assert len(answered) == count / 3
    assert client.llen(LIST) == count - count / 3
    client.srem(keys.PAUSED, "probe")
    aside.look()


def test_nobody_is_judged_by_a_cluster_that_was_silent_itself(client: redis.Redis) -> None:
    put_aside(client, "y@h", new_boot(), "unknown")
    client.hset(keys.SWEEP, "beat_from", time.time() + 5)
    Aside(client, lambda _: pytest.fail("it was judged")).look()
    assert client.llen(LIST) == 1

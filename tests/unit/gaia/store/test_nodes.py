"""Heartbeats, and what is done with the queues of nodes that have gone."""

import time
from collections.abc import Iterator

import pytest
import redis

from gaia import Gaia, errors
from gaia.sticky import HolderId, new_boot
from gaia.store import keys, nodes
from gaia.store.nodes import Node, Nodes
from gaia.store.scripts import script


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


def node(name: str = "a@h", boot: str | None = None) -> Node:
    return Node(name, boot or new_boot(), 1, "h", ("q", "r"), 4, "1", 2.5)


def gone(client: redis.Redis, *names: str) -> None:
    """Make nodes that beat once, long ago, in a cluster that beats."""
    client.hset(keys.SWEEP, mapping={"beat": time.time(), "beat_from": 1.0})
    for each in names:
        client.zadd(keys.NODES, {each: 5.0})


def test_a_node_that_beats_is_listed_as_it_is(client: redis.Redis) -> None:
    one, other = node("b@h"), node("a@h.example\n")
    before = time.time()
    for each in (one, other):
        assert nodes.beat(client, each) == []
    found = Nodes(client, "redis://h").list()
    assert [each.name for each in found] == ["a@h.example\n", "b@h"]
    assert found[1] == Node(**{**vars(one), "seen_at": found[1].seen_at})
    assert before - 1 < found[1].seen_at < time.time() + 1


def test_a_heartbeat_lapses_by_itself(client: redis.Redis) -> None:
    one = node()
    nodes.beat(client, one)
    assert 0 < client.ttl(keys.node(one.name)) <= nodes.LIFE_S
    client.delete(keys.node(one.name))
    assert Nodes(client, "redis://h").list() == []


def test_a_node_lives_with_the_boot_that_made_the_id_alone(client: redis.Redis) -> None:
    one, found = node(), Nodes(client, "redis://h")
    holder = HolderId.new(one.name, one.boot)
    assert not found.lives(holder)
    nodes.beat(client, one)
    assert found.lives(holder)
    assert not found.lives(HolderId.new(one.name, new_boot()))
    assert not found.lives(HolderId.new("other@h", one.boot))


def test_the_queue_of_a_gone_node_is_orphaned_and_the_node_forgotten(client: redis.Redis) -> None:
    gone(client, "x@h")
    messages = {f"m{priority}".encode() for priority in (0, 3, 6, 9)}
    for each in messages:
        client.lpush(keys.queue_list("gaia.node.x@h", int(each[1:])), each)
    client.lpush("gaia.node.y@h", "of another")
    found = nodes.beat(client, node())
    assert {message for _, message in found} == messages
    assert client.zscore(keys.NODES, "x@h") is None
    assert client.lrange("gaia.node.y@h", 0, -1) == [b"of another"]
    assert nodes.orphans(client, found) == []
    assert not client.exists(keys.ORPHANS)


def test_orphans_that_nobody_answered_are_given_again(client: redis.Redis) -> None:
    gone(client, "x@h")
    client.lpush("gaia.node.x@h", *(f"m{number}" for number in range(40)))
    first = nodes.beat(client, node())
    assert 0 < len(first) <= 16
    assert nodes.beat(client, node("b@h")) != []
    seen = {message for _, message in first}
    while first:
        first = nodes.orphans(client, first)
        seen |= {message for _, message in first}
    assert len(seen) == 40


def test_one_beat_takes_a_bounded_number_of_messages(client: redis.Redis) -> None:
    gone(client, "x@h")
    client.lpush("gaia.node.x@h", *(f"m{number}" for number in range(nodes.SWEPT_PER_BEAT + 10)))
    nodes.beat(client, node())
    assert client.hlen(keys.ORPHANS) == nodes.SWEPT_PER_BEAT
    nodes.beat(client, node())
    assert client.hlen(keys.ORPHANS) == nodes.SWEPT_PER_BEAT + 10
    assert client.zscore(keys.NODES, "x@h") is None


def test_nobody_is_judged_by_a_cluster_that_was_silent_itself(client: redis.Redis) -> None:
    gone(client, "x@h")
    client.hset(keys.SWEEP, "beat", time.time() - nodes.LIFE_S)
    client.lpush("gaia.node.x@h", "m")
    for _ in range(3):
        assert nodes.beat(client, node()) == []
    assert client.llen("gaia.node.x@h") == 1
    client.hset(keys.SWEEP, "beat_from", time.time() - 1)
    assert len(nodes.beat(client, node())) == 1


def test_a_node_that_lives_keeps_its_queue(client: redis.Redis) -> None:
    one = node("x@h")
    nodes.beat(client, one)
    gone(client, "x@h")  # as if its last word were long ago; its heartbeat is there
    client.lpush("gaia.node.x@h", "m")
    assert nodes.beat(client, node()) == []
    assert client.llen("gaia.node.x@h") == 1


def test_a_node_that_leaves_orphans_its_queue_at_once(client: redis.Redis) -> None:
    one = node("x@h")
    nodes.beat(client, one)
    client.lpush("gaia.node.x@h", "m")
    assert [message for _, message in nodes.leave(client, one)] == [b"m"]
    assert Nodes(client, "redis://h").list() == []
    assert client.zcard(keys.NODES) == 0


def test_an_earlier_boot_does_not_take_the_node_from_a_later_one(client: redis.Redis) -> None:
    earlier, later = node("x@h"), node("x@h")
    nodes.beat(client, earlier)
    nodes.beat(client, later)
    client.lpush("gaia.node.x@h", "m")
    assert nodes.leave(client, earlier) == []
    assert client.llen("gaia.node.x@h") == 1
    assert [each.boot for each in Nodes(client, "redis://h").list()] == [later.boot]


def test_what_comes_back_to_the_queue_of_a_gone_node_is_swept(client: redis.Redis) -> None:
    gone(client)
    client.rpush(keys.aside("q.x"), "gaia.node.x@h\x06\x163\nmessage")
    assert script(client, "resume")(keys=[keys.PAUSED, keys.aside("q.x")], args=["q.x"]) == 1
    assert [message for _, message in nodes.beat(client, node())] == [b"message"]


def test_redis_that_does_not_answer_is_unreachable() -> None:
    with Gaia("redis://127.0.0.1:1/0") as gaia, pytest.raises(errors.Unreachable):
        gaia.nodes()


def test_a_heartbeat_of_another_version_is_listed_as_far_as_it_goes(client: redis.Redis) -> None:
    client.zadd(keys.NODES, {"x@h": time.time()})
    client.hset(keys.node("x@h"), mapping={"name": "x@h", "boot": "b", "colour": "red"})
    (found,) = Nodes(client, "redis://h").list()
    assert (found.name, found.boot, found.pid) == ("x@h", "b", 0)

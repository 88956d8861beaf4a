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
from tests.support.probe import AskThing


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
    one = node()
    nodes.beat(client, one)
    assert client.hlen(keys.ORPHANS) == nodes.SWEPT_PER_BEAT
    nodes.beat(client, one)
    assert client.hlen(keys.ORPHANS) == nodes.SWEPT_PER_BEAT + 10
    assert client.zscore(keys.NODES, "x@h") is None


def test_nobody_is_judged_by_a_cluster_that_was_silent_itself(client: redis.Redis) -> None:
    gone(client, "x@h")
    client.hset(keys.SWEEP, "beat", time.time() - nodes.LIFE_S)
    client.lpush("gaia.node.x@h", "m")
    one = node()
    for _ in range(3):
        assert nodes.beat(client, one) == []
    assert client.llen("gaia.node.x@h") == 1
    client.hset(keys.SWEEP, "beat_from", time.time() - 1)
    found = nodes.beat(client, one)
    assert found is not None
    assert len(found) == 1


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
    nodes.beat(client, later, replaces=earlier.boot)
    client.lpush("gaia.node.x@h", "m")
    assert nodes.leave(client, earlier) == []
    assert client.llen("gaia.node.x@h") == 1
    assert [each.boot for each in Nodes(client, "redis://h").list()] == [later.boot]


def test_a_boot_that_is_not_known_to_have_ended_keeps_the_name(client: redis.Redis) -> None:
    one, other = node("x@h"), node("x@h")
    nodes.beat(client, one)
    before = client.hgetall(keys.node("x@h"))
    assert nodes.beat(client, other) is None
    assert nodes.beat(client, other, first=True, replaces="of a third") is None
    assert client.hgetall(keys.node("x@h")) == before
    assert nodes.beat(client, one) == []
    found = nodes.holder_of(client, "x@h")
    assert found is not None
    assert found.boot == one.boot
    assert nodes.holder_of(client, "y@h") is None


def test_the_first_beat_of_a_boot_orphans_what_was_for_earlier_ones(client: redis.Redis) -> None:
    earlier, later = node("x@h"), node("x@h")
    nodes.beat(client, earlier)
    client.lpush("gaia.node.x@h", "m")
    assert nodes.beat(client, earlier) == []
    found = nodes.beat(client, later, first=True, replaces=earlier.boot)
    assert [message for _, message in found] == [b"m"]
    nodes.orphans(client, found)
    client.lpush("gaia.node.x@h", "for the later")
    assert nodes.beat(client, later) == []
    assert client.llen("gaia.node.x@h") == 1


def test_delayed_calls_for_a_node_are_orphaned_when_it_goes(client: redis.Redis, fresh_url: str) -> None:
    one, other = node("x@h"), node("y@h")
    with Gaia(fresh_url) as gaia:
        for each in (one, other):
            nodes.beat(client, each)
        mine = gaia.submit(AskThing(HolderId.new("x@h", one.boot).format()), delay=86_400, priority=9)
        kept = gaia.submit(AskThing(HolderId.new("y@h", other.boot).format()), delay=86_400)
        withdrawn = gaia.submit(AskThing(HolderId.new("x@h", one.boot).format()), delay=86_400)
        withdrawn.cancel()
        assert client.ttl(f"{keys.LATER}x@h") == -1
        (found,) = nodes.leave(client, one)
    assert mine.id.encode() in found[1]
    assert client.zrange(keys.DELAYED, 0, -1) == client.hkeys(keys.DELAYED_MESSAGES) == [kept.id.encode()]
    assert not client.exists(f"{keys.LATER}x@h")


def test_delayed_calls_for_a_node_that_came_due_are_forgotten_with_the_next(
    client: redis.Redis, fresh_url: str
) -> None:
    one = node("x@h")
    nodes.beat(client, one)
    client.zadd(f"{keys.LATER}x@h", {"long due": 5.0})
    with Gaia(fresh_url) as gaia:
        pending = gaia.submit(AskThing(HolderId.new("x@h", one.boot).format()), delay=60)
    assert client.zrange(f"{keys.LATER}x@h", 0, -1) == [pending.id.encode()]


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

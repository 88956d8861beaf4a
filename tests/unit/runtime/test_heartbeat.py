"""The thread by which a worker says that it lives."""

import socket
import threading
from collections.abc import Iterator

import pytest
import redis

from gaia.sticky import new_boot
from gaia.store import keys
from gaia.store.connection import connect
from gaia.store.nodes import Node, Nodes
from tasks.runtime.heartbeat import Heartbeat
from tests.support.waiting import until


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    found = connect(fresh_url)
    yield found
    found.connection_pool.disconnect()


def node() -> Node:
    return Node("a@h", new_boot(), 1, "h", ("q",), 4, "1", 0.0)


def running() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "gaia-heartbeat"]


def test_it_beats_at_once_and_again_until_it_is_closed(client: redis.Redis) -> None:
    nodes, beating = Nodes(client, "redis://h"), Heartbeat(client, node(), lambda _: None)
    beating.start()
    (first,) = nodes.list()
    until(lambda: nodes.list()[0].seen_at > first.seen_at)
    for _ in range(2):
        beating.close()
        assert nodes.list() == []
        assert running() == []


def test_a_withdrawn_node_does_not_live_and_its_queue_is_answered_at_the_end(client: redis.Redis) -> None:
    answered: list[bytes] = []
    beating = Heartbeat(client, node(), answered.append)
    beating.start()
    beating.withdraw()
    until(lambda: Nodes(client, "redis://h").list() == [])
    client.lpush(keys.own_queue("a@h"), "given back meanwhile")
    beating.close()
    assert answered == [b"given back meanwhile"]
    assert not client.exists(keys.ORPHANS, keys.own_queue("a@h"))


def test_many_orphans_are_answered_in_one_go(client: redis.Redis) -> None:
    answered: list[bytes] = []
    client.lpush(keys.own_queue("a@h"), *range(300))
    Heartbeat(client, node(), answered.append).close()
    assert sorted(map(int, answered)) == list(range(300))


def test_an_answer_that_fails_neither_ends_the_thread_nor_loses_the_orphan(client: redis.Redis) -> None:
    client.hset(keys.ORPHANS, "name", "message")
    seen: list[bytes] = []

    def answer(message: bytes) -> None:
        seen.append(message)
        if len(seen) < 2:
            raise ValueError("a defect")

    beating = Heartbeat(client, node(), answer)
    beating.start()
    until(lambda: not client.exists(keys.ORPHANS))
    assert len(Nodes(client, "redis://h").list()) == 1
    beating.close()


def test_without_redis_it_goes_on_trying() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = connect(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        beating = Heartbeat(away, node(), lambda _: None)
        beating.start()
        assert len(running()) == 1
        beating.close()
        assert running() == []
        away.connection_pool.disconnect()

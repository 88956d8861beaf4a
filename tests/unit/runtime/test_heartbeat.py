"""The thread by which a worker says that it lives."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from gaia.sticky import new_boot
from gaia.store import keys
from gaia.store.connection import connect
from gaia.store.nodes import LIFE_S, Node, Nodes
from tasks.runtime.heartbeat import Heartbeat, NameTaken
from tests.support.waiting import until


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    found = connect(fresh_url)
    yield found
    found.connection_pool.disconnect()


def node() -> Node:
    return Node("a@h", new_boot(), 1, "h", ("q",), 4, "1", 0.0)


def heartbeat(
    client: redis.Redis, answer: Callable[[bytes], None] = lambda _: None, taken: Callable[[], None] = lambda: None
) -> Heartbeat:
    return Heartbeat(client, node(), answer, taken=taken)


def begin(beating: Heartbeat, *, has_ended: bool = False) -> Heartbeat:
    beating.claim(has_ended=lambda _: has_ended)
    beating.start()
    return beating


def running() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "gaia-heartbeat"]


def test_it_beats_at_once_and_again_until_it_is_closed(client: redis.Redis) -> None:
    nodes, beating = Nodes(client, "redis://h"), begin(heartbeat(client))
    (first,) = nodes.list()
    until(lambda: nodes.list()[0].seen_at > first.seen_at)
    for _ in range(2):
        beating.close()
        assert nodes.list() == []
        assert running() == []


def test_a_withdrawn_node_does_not_live_and_its_queue_is_answered_at_the_end(client: redis.Redis) -> None:
    answered: list[bytes] = []
    beating = begin(heartbeat(client, answered.append))
    beating.withdraw()
    until(lambda: Nodes(client, "redis://h").list() == [])
    client.lpush(keys.own_queue("a@h"), "given back meanwhile")
    beating.close()
    assert answered == [b"given back meanwhile"]
    assert not client.exists(keys.ORPHANS, keys.own_queue("a@h"))


def test_many_orphans_are_answered_in_one_go(client: redis.Redis) -> None:
    answered: list[bytes] = []
    client.lpush(keys.own_queue("a@h"), *range(300))
    heartbeat(client, answered.append).close()
    assert sorted(map(int, answered)) == list(range(300))


def test_an_answer_that_fails_neither_ends_the_thread_nor_loses_the_orphan(client: redis.Redis) -> None:
    client.hset(keys.ORPHANS, "name", "message")
    seen: list[bytes] = []

    def answer(message: bytes) -> None:
        seen.append(message)
        if len(seen) < 2:
            raise ValueError("a defect")

    beating = begin(heartbeat(client, answer))
    until(lambda: not client.exists(keys.ORPHANS))
    assert len(Nodes(client, "redis://h").list()) == 1
    beating.close()


def test_an_answer_that_fails_keeps_no_other_caller_waiting(client: redis.Redis) -> None:
    client.hset(keys.ORPHANS, mapping={str(number): number for number in range(10)})
    seen: set[bytes] = set()

    def answer(message: bytes) -> None:
        if message == b"5":
            raise ValueError("a defect")
        seen.add(message)

    begin(heartbeat(client, answer)).close()
    assert len(seen) == 9
    assert client.hkeys(keys.ORPHANS) == [b"5"]


def test_slow_answers_do_not_hold_up_the_next_beat(client: redis.Redis) -> None:
    client.hset(keys.ORPHANS, mapping={str(number): number for number in range(100)})
    answered: list[bytes] = []

    def answer(message: bytes) -> None:
        answered.append(message)
        threading.Event().wait(0.5)

    beating = heartbeat(client, answer)
    began = time.monotonic()
    beating.claim(has_ended=lambda _: False)
    assert time.monotonic() - began < LIFE_S / 2
    assert client.hlen(keys.ORPHANS) == 100 - len(answered) > 0


# --- one name, two processes


def test_a_name_that_another_beats_for_is_refused_and_left_to_it(client: redis.Redis) -> None:
    first = begin(heartbeat(client))
    (holder,) = Nodes(client, "redis://h").list()
    with pytest.raises(NameTaken, match="a worker called a@h lives already, with pid 1 on h"):
        heartbeat(client).claim(has_ended=lambda _: False)
    assert Nodes(client, "redis://h").list()[0].boot == holder.boot
    first.close()


def test_a_name_is_free_when_its_heartbeat_lapses(client: redis.Redis) -> None:
    heartbeat(client).claim(has_ended=lambda _: False)
    client.expire(keys.node("a@h"), 1)
    begin(heartbeat(client)).close()


def test_a_name_whose_process_is_known_to_have_ended_is_free_at_once(client: redis.Redis) -> None:
    heartbeat(client).claim(has_ended=lambda _: False)
    client.lpush(keys.own_queue("a@h"), "for the earlier boot")
    answered: list[bytes] = []
    beating = begin(heartbeat(client, answered.append), has_ended=True)
    assert answered == [b"for the earlier boot"]
    assert client.ttl(keys.node("a@h")) > 0
    beating.close()


def test_a_process_that_finds_its_name_taken_says_so_once_and_leaves_it(client: redis.Redis) -> None:
    taken = threading.Event()
    stopped = begin(heartbeat(client, taken=taken.set))
    client.delete(keys.node("a@h"))
    later = begin(heartbeat(client))
    (holder,) = Nodes(client, "redis://h").list()
    assert taken.wait(20)
    stopped.close()
    assert [each.boot for each in Nodes(client, "redis://h").list()] == [holder.boot]
    later.close()


def test_without_redis_it_goes_on_trying() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = connect(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        beating = begin(heartbeat(away))
        assert len(running()) == 1
        beating.close()
        assert running() == []
        away.connection_pool.disconnect()

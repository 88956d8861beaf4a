"""What a hostile look at the scripts, the wait and the holder found."""

import time

import pytest
import redis

from gaia.store import keys
from tests.support.waiting import until
from tests.unit.broker.test_scripts import Worker, lapse, put, queued, text

FAR = time.monotonic() + 3600


@pytest.fixture
def one(client: "redis.Redis") -> Worker:
    return Worker(client, "one")


@pytest.fixture
def other(client: "redis.Redis") -> Worker:
    return Worker(client, "other")


# --- scripts


def test_a_message_that_cannot_be_restored_keeps_no_other_from_it(client: "redis.Redis") -> None:
    worker = Worker(client, "w", "q", "r")
    put(client, "a", name="r")
    put(client, "b", name="q")
    worker.turn(1)
    worker.turn(1)
    assert client.hlen("unacked") == 2
    client.set("r", "no list")
    lapse(client, worker)
    assert queued(client, "q") == ["b"]
    assert client.hkeys("unacked") == [b"a"]
    assert not client.exists(keys.LOST + "a")
    client.delete("r")
    until(lambda: worker.sweep(0.05))
    assert queued(client, "r") == ["a"]


def test_a_full_server_still_gives_back_and_restores(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a", "b")
    one.turn(2)
    client.config_set("maxmemory", 1)
    try:
        assert one.give_back("next", "a") == 1
        lapse(client, other)
    finally:
        client.config_set("maxmemory", 0)
    assert sorted(queued(client)) == ["a", "b"]


def test_a_user_who_may_not_announce_loses_no_result(client: "redis.Redis", redis_url: str, fresh_url: str) -> None:
    client.execute_command("ACL", "SETUSER", "mute", "reset", "on", ">secret", "~*", "+@all")
    try:
        with redis.Redis.from_url(
            fresh_url.replace(fresh_url.partition("//")[2].rpartition("@")[0], "mute:secret")
        ) as limited:
            worker = Worker(limited, "w")
            put(client, "a", "b")
            worker.turn(2)
            worker.turn(0, worker.end("a", "done"), worker.act("b", "delay", time.time() + 60))
    finally:
        client.execute_command("ACL", "DELUSER", "mute")
    assert client.get(keys.result("a")) == b"done"
    assert client.zcard(keys.DELAYED) == 1
    assert client.hlen("unacked") == 0


def test_two_calls_of_one_tag_are_delayed_side_by_side(client: "redis.Redis", one: Worker) -> None:
    """A foreign producer may give every message the same tag."""
    for call in "ab":
        client.lpush("q", text("same", correlation_id=call))
        one.turn(1)
        one.turn(0, one.act("same", "delay", time.time() + 0.1))
    found: list[str] = []
    until(lambda: found.extend(one.turn(2)[1]) or len(found) == 2, 5)


def test_a_server_clock_that_was_set_back_stops_no_sweep(client: "redis.Redis", one: Worker, other: Worker) -> None:
    now = time.time()
    client.hset(keys.SWEEP, mapping={"at": now + 3600, "from": now + 3600, "late": 0})
    put(client, "a", "b")
    one.turn(2)
    client.zadd("unacked_index", {"b": now + 3600})
    restored = 0

    def both() -> bool:
        nonlocal restored
        restored += other.sweep(0.2)
        return restored == 2

    until(both, 10)

"""What a hostile look at the scripts, the wait and the holder found."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from gaia.store import keys
from gaia.store.scripts import script
from tasks.broker.holder import Holder
from tasks.broker.wait import Wait
from tests.support.waiting import until
from tests.unit.broker.conftest import Broker
from tests.unit.broker.conftest import held as sizes
from tests.unit.broker.conftest import text as message
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


def test_a_full_server_still_renews_gives_back_and_restores(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a", "b")
    one.turn(2)
    client.config_set("maxmemory", 1)
    try:
        assert one.renew("a", "b") == []
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


def test_what_cannot_go_back_from_a_pause_stays_aside(client: "redis.Redis") -> None:
    client.sadd(keys.PAUSED, "q.x")
    client.rpush(keys.aside("q.x"), b"q\n" + text("a"), b"r\n" + text("b"))
    client.set("r", "no list")
    resume = script(client, "resume")
    with pytest.raises(redis.ResponseError, match="the pause holds on"):
        resume(keys=[keys.PAUSED, keys.aside("q.x")], args=["q.x"])
    assert client.llen(keys.aside("q.x")) == 2
    assert client.sismember(keys.PAUSED, "q.x")
    client.delete("r")
    assert resume(keys=[keys.PAUSED, keys.aside("q.x")], args=["q.x"]) == 2


# --- the wait


class Replies:
    """A connection that answers from a list."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)

    def read_response(self, **_: Any) -> Any:
        found = self.replies.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def test_content_after_an_empty_list_is_looked_at_at_once() -> None:
    """Each time it was there when the wait was armed, and a peer took it."""
    wait = Wait()
    assert not wait.read_armed(Replies(b"OK", 1), is_any_paused=False)
    assert wait.read_armed(Replies(b"OK", 0), is_any_paused=False)
    assert not wait.read_armed(Replies(b"OK", 1), is_any_paused=False)


def test_a_refused_look_ends_no_worker(broker: Broker, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a server that somebody's long script keeps busy."""
    broker.consume().wait_armed()
    client.set("other", "no list")

    def refused(_: Wait, connection: Any, *__: Any) -> None:
        commands = [("CLIENT", "CACHING", "YES"), ("LLEN", "other")]
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    with monkeypatch.context() as patch:
        patch.setattr(Wait, "arm", refused)
        client.lpush("q", message("a"))
        broker.receive(1)
        client.config_resetstat()
        broker.idle(0.5)
        assert client.info("commandstats")["cmdstat_llen"]["calls"] <= 2
    client.lpush("q", message("b"))
    broker.receive(2)


@pytest.mark.parametrize("user", ["-client"], indirect=True)
def test_a_list_that_is_none_ends_no_worker_without_tracking(user: str, client: "redis.Redis", holders: None) -> None:
    client.set("q", "no list")
    broker = Broker(user).consume("q", "r")
    try:
        broker.idle()
        client.lpush("r", message("a", "r"))
        assert broker.receive(1) == ["a"]
    finally:
        broker.close()


@pytest.fixture
def user(client: "redis.Redis", valkey: str, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "limited"
    client.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", "~*", "&*", "+@all", request.param)
    database = client.get_connection_kwargs()["db"]
    host = valkey.rpartition("@")[2].partition("/")[0]
    yield f"redis://{name}:secret@{host}/{database}"
    client.execute_command("ACL", "DELUSER", name)


# --- the channel


def test_what_ends_after_the_last_consumer_was_cancelled_is_committed(broker: Broker, client: "redis.Redis") -> None:
    client.lpush("q", message("a"))
    broker.consume().receive(1)
    broker.consumer.cancel()
    broker.received[0].ack()
    broker.pump(lambda: sizes(client) == (0, 0, 0), "the commit", timeout_s=5)


def test_two_prefixes_on_one_server_are_held_apart(fresh_url: str, client: "redis.Redis", holders: None) -> None:
    first = Broker(fresh_url, global_keyprefix="one:").consume()
    second = Broker(fresh_url, global_keyprefix="two:").consume()
    client.lpush("two:q", message("a"))
    second.receive(1)
    second.received[0].requeue()
    second.receive(2)
    second.received[1].ack()
    second.close()
    assert sizes(client, "two:") == (0, 0, 0)
    first.close()


# --- the holder


def test_commits_under_way_are_renewed() -> None:
    holder = Holder()
    holder.fetched("a", "f", FAR, {})
    holder.end("a")
    taken = holder.take_commits()
    assert holder.due() == [("a", "f")]
    holder.put_back(taken)
    assert holder.due() == [("a", "f")]


def test_what_waits_for_a_slot_is_dropped_and_then_does_not_start() -> None:
    holder = Holder()
    for tag in "abc":
        holder.fetched(tag, "f", FAR, {})
    for tag in "ab":
        holder.wait(tag, 1.0)
    assert holder.start("a", 1.0)
    assert holder.give_back_waiting() == ["b"]
    assert not holder.start("b", 1.0)
    assert holder.held() == ["a", "c"]

"""Looks at a real Redis."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from config.watching import Monitor
from gaia import Gaia, api, files, wire
from gaia.store import keys
from gaia.store.nodes import Node, beat
from tasks.cli.server import free_port
from tasks.monitor import sampler
from tasks.monitor.calls import Calls
from tasks.monitor.sampler import Sampler
from tasks.monitor.series import Book
from tasks.scope import Clock
from tests.support import cluster
from tests.support.waiting import until


class Look:
    def __init__(self, url: str, **settings: Any) -> None:
        self.book = Book()
        self.now = 1000.0
        clock = Clock(monotonic=lambda: self.now)
        self.sampler = Sampler(url, Monitor(**settings), Calls(self.book, clock), self.book, clock)

    def value(self, name: str, /, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.book.text().decode()):
            for each in family.samples:
                if each.name == name and each.labels == labels:
                    return each.value
        return None


@pytest.fixture
def store(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


@pytest.fixture
def look(fresh_url: str) -> Iterator[Look]:
    found = Look(fresh_url, queues=["celery"])
    yield found
    found.sampler._client.close()


def stock(tag: str) -> str:
    """A message as a stock Celery producer leaves it: without a time."""
    return json.dumps({"body": "", "headers": {"id": tag}, "properties": {"delivery_tag": tag}})


def test_a_queue_is_as_long_as_its_priorities_together_and_as_old_as_the_oldest(
    fresh_url: str, look: Look, store: "redis.Redis"
) -> None:
    with Gaia(fresh_url) as g:
        for priority in (0, 4, 9, 9):
            g.submit(api.Request("http://127.0.0.1/"), priority=priority)
        old = store.lpop(keys.queue_list("api", 9))
        assert isinstance(old, bytes)
        at = json.loads(old)["headers"]["gaia"]["at"]
        store.rpush(keys.queue_list("api", 9), old.replace(repr(at).encode(), repr(at - 3600).encode()))
        g.submit(files.Read("data:x"), delay=3600)
    assert look.sampler.look()
    assert look.value("celery_queue_length", queue_name="api") == 4
    assert [
        look.value("celery_queue_length_by_priority", queue_name="api", priority=each) for each in ("0", "3", "6", "9")
    ] == [1, 1, 0, 2]
    age_s = look.value("celery_queue_oldest_task_age_seconds", queue_name="api")
    assert age_s is not None
    assert 3600 <= age_s < 3700
    assert look.value("celery_queue_oldest_task_age_seconds", queue_name="files") == 0
    assert look.value("gaia_delayed_calls") == 1
    assert look.value("gaia_delayed_overdue_seconds") == 0
    latest = look.sampler.latest
    assert latest is not None
    assert latest.waiting["api"] == 4


def test_a_stock_message_is_at_least_as_old_as_it_was_seen(look: Look, store: "redis.Redis") -> None:
    store.lpush("celery", stock("a"), stock("b"))
    look.sampler.look()
    look.now += 60
    look.sampler.look()
    assert look.value("celery_queue_oldest_task_age_seconds", queue_name="celery") == 60
    store.rpop("celery")
    look.now += 5
    look.sampler.look()
    assert look.value("celery_queue_oldest_task_age_seconds", queue_name="celery") == 0


def test_what_is_held_is_counted_by_queue(look: Look, store: "redis.Redis") -> None:
    store.hset("unacked", mapping={"1": "x", "2": "x", "3": "x", "stock": "x"})
    own = keys.own_queue("api@host")
    store.hset(keys.HELD, mapping={"1": "f:1 10 20 api", "2": "f:1 10 20 api\x06\x169", "3": f"f:1 10 20 {own}"})
    look.sampler.look()
    assert look.value("celery_unacked_messages") == 4
    assert look.value("celery_queue_unacked", queue_name="api") == 2
    assert look.value("celery_queue_unacked", queue_name="gaia.node") == 1


def test_workers_are_told_by_their_heartbeats(look: Look, store: "redis.Redis") -> None:
    for number, queues in enumerate([("api", "files"), ("api",)]):
        node = Node(f"w{number}@vm", "b" * 16, 1, "vm", queues, 10, "0.1.0", time.time())
        beat(store, node, first=True)
    look.sampler.look()
    assert look.value("celery_active_worker_count", queue_name="api") == 2
    assert look.value("celery_active_process_count", queue_name="api") == 20
    assert look.value("celery_active_worker_count", queue_name="browser") == 0
    assert look.value("celery_worker_concurrency", hostname="vm", worker="w1@vm") == 10
    assert look.value("celery_worker_up", hostname="vm", worker="w1@vm") == 1


def test_dead_letters_and_what_is_paused_show(look: Look, store: "redis.Redis") -> None:
    store.zadd(keys.DEAD, {"a": 1, "b": 2})
    store.sadd(keys.PAUSED, "api", "files.read")
    store.zadd(keys.DELAYED, {"a": 1})
    look.sampler.look()
    assert look.value("gaia_dead_letters_kept") == 2
    assert look.value("gaia_paused", name="files.read") == 1
    overdue_s = look.value("gaia_delayed_overdue_seconds")
    assert overdue_s is not None
    assert overdue_s > 1e9
    store.srem(keys.PAUSED, "api")
    look.sampler.look()
    assert look.value("gaia_paused", name="api") is None


@pytest.mark.parametrize("name", ["api", "unacked", keys.HELD, keys.DELAYED, keys.DEAD, keys.PAUSED])
def test_a_key_of_another_type_counts_as_empty(look: Look, store: "redis.Redis", name: str) -> None:
    store.set(name, "no such thing")
    assert look.sampler.look()
    assert look.value("celery_queue_length", queue_name="api") == 0


@pytest.mark.parametrize(
    "message",
    [b"", b"\xff\xfe", b'"gaia": {"at": "x"}', b'"gaia": {"at": 1.2.3}', b"{" * 100, b'"delivery_tag": "\xff\xfe"'],
)
def test_garbage_at_the_head_of_a_queue_is_looked_at_unharmed(look: Look, store: "redis.Redis", message: bytes) -> None:
    store.lpush("api", message)
    assert look.sampler.look()
    assert look.value("celery_queue_length", queue_name="api") == 1


def test_a_redis_that_is_away_shows_and_the_last_figures_stay(look: Look) -> None:
    away = Look(f"redis://127.0.0.1:{free_port('127.0.0.1')}/0")
    assert not away.sampler.look()
    assert away.value("gaia_redis_up") == 0
    assert away.sampler.stale()
    look.sampler.look()
    assert not look.sampler.stale()
    assert look.value("gaia_redis_up") == 1
    look.now += 60
    assert look.sampler.stale()


def test_a_redis_that_is_away_is_told_of_once_and_again_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with cluster.server(tmp_path) as server:
        look = Look(server.url)
        assert look.sampler.look()
        assert not caplog.messages
        server.kill()
        for _ in range(3):
            assert not look.sampler.look()
        server.start()
        until(look.sampler.look)
        assert look.sampler.look()
        look.sampler._client.close()
    where, password = (
        f"Redis at redis://***@{server.url.rpartition('@')[2]}",
        server.url.split(":")[2].partition("@")[0],
    )
    away, back = caplog.messages
    assert away.startswith(f"{where} does not answer: ")
    assert "onnection" in away
    assert back == f"{where} answers again"
    assert password not in caplog.text


def test_a_stock_queue_is_looked_at_and_not_said_to_be_without_workers(look: Look, store: "redis.Redis") -> None:
    store.lpush("celery", stock("a"))
    store.lpush("mine", stock("b"))
    beat(store, Node("w@vm", "b" * 16, 1, "vm", ("mine",), 10, "0.1.0", time.time()), first=True)
    look.sampler.look()
    latest = look.sampler.latest
    assert latest is not None
    assert latest.ours >= {"api", "mine"}
    assert "celery" not in latest.ours
    assert look.value("celery_queue_length", queue_name="celery") == 1
    assert look.value("celery_active_worker_count", queue_name="celery") is None
    assert look.value("celery_active_worker_count", queue_name="mine") == 1


def test_of_more_held_messages_than_are_told_apart_there_is_no_figure(
    look: Look, store: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "TOLD_APART", 2)
    for tag in ("1", "2", "3"):
        store.hset("unacked", tag, "x")
        store.hset(keys.HELD, tag, "f:1 10 20 api")
        look.sampler.look()
        assert look.value("celery_unacked_messages") == int(tag)
        assert look.value("celery_queue_unacked", queue_name="api") == (int(tag) if tag < "3" else None)


def test_a_message_that_came_back_waits_since_then(look: Look, store: "redis.Redis") -> None:
    now = time.time()
    for name, header in {
        "api": wire.waiting_again(
            {"v": 1, "at": now - 3600, "again": 5, "deadline": now + 1, "key": "}" * 512}, now - 60
        ),
        "files": {"v": 1, "at": now - 3600, "key": '{"again": 7}', "deadline": now + 1},
    }.items():
        store.lpush(name, json.dumps({"headers": {"gaia": header, "again": 1}, "properties": {"delivery_tag": "t"}}))
    look.sampler.look()
    for name, expected in {"api": 60, "files": 3600}.items():
        age_s = look.value("celery_queue_oldest_task_age_seconds", queue_name=name)
        assert age_s is not None
        assert expected <= age_s < expected + 100


@pytest.mark.parametrize("broken", ["a hash", "of another type"])
def test_a_node_that_cannot_be_read_hides_no_other(look: Look, store: "redis.Redis", broken: str) -> None:
    beat(store, Node("w@vm", "b" * 16, 1, "vm", ("api",), 10, "0.1.0", time.time()), first=True)
    store.zadd(keys.NODES, {"odd": 1, b"\xff": 1})
    if broken == "a hash":
        store.hset(keys.NODE + "odd", mapping={"name": "odd", "pid": "x", "queues": "api"})
    else:
        store.set(keys.NODE + "odd", "x")
    assert look.sampler.look()
    assert look.value("celery_active_worker_count", queue_name="api") == 1

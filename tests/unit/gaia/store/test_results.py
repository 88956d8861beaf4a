"""Waiting for results."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from gaia.store import keys
from gaia.store.results import Meta, Waiter, parse
from tests.support import cluster
from tests.support.cluster import Server
from tests.support.waiting import until


def meta(value: object = 1, status: str = "SUCCESS") -> dict[str, Any]:
    return {"status": status, "result": value}


def store(client: redis.Redis, call_id: str, found: dict[str, Any], *, announced: bool = True) -> None:
    """Store a result as Celery does."""
    client.set(keys.result(call_id), json.dumps(found), ex=60)
    if announced:
        client.publish(keys.result(call_id), json.dumps(found))


def subscribed(client: redis.Redis, call_id: str) -> bool:
    return bool(client.pubsub_numsub(keys.result(call_id))[0][1])


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "gaia-results"]


@pytest.fixture
def waiter(redis_url: str) -> Iterator[Waiter]:
    found = Waiter(redis_url)
    yield found
    found.close()
    assert not threads()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with cluster.server(tmp_path) as found:
        yield found


# --- what is stored


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_final_result_is_one(status: str) -> None:
    assert parse(json.dumps(meta(status=status))) == meta(status=status)


@pytest.mark.parametrize(
    "stored", [None, "[]", "null", "5", '"SUCCESS"', "{}", '{"status": "RETRY"}', '{"status": "STARTED"}']
)
def test_what_is_not_final_is_none(stored: str | None) -> None:
    assert parse(stored) is None


@pytest.mark.parametrize("stored", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_nobody_can_read_is_a_failure(stored: bytes) -> None:
    found = parse(stored)
    assert found is not None
    assert found["status"] == "FAILURE"


# --- waiting


def test_a_result_stored_before_is_found(waiter: Waiter, client: redis.Redis) -> None:
    store(client, "before", meta(), announced=False)
    assert waiter.wait("before").result(20) == meta()


def test_a_result_announced_later_is_found(waiter: Waiter, client: redis.Redis) -> None:
    future = waiter.wait("later")
    until(lambda: subscribed(client, "later"))
    assert not future.done()
    store(client, "later", meta())
    assert future.result(20) == meta()


def test_a_lost_announcement_is_made_up_for_by_the_sweep(waiter: Waiter, client: redis.Redis) -> None:
    future = waiter.wait("lost")
    until(lambda: subscribed(client, "lost"))
    store(client, "lost", meta(), announced=False)
    assert future.result(20) == meta()


def test_a_lost_announcement_is_found_while_others_come_all_the_time(waiter: Waiter, client: redis.Redis) -> None:
    future = waiter.wait("starved")
    until(lambda: subscribed(client, "starved"))
    store(client, "starved", meta(), announced=False)
    numbers = iter(range(1_000_000))

    def done() -> bool:
        number = next(numbers)
        other = waiter.wait(f"other-{number}")
        waiter.forget(f"other-{number}", other)
        return future.done()

    until(done)


def test_an_intermediate_state_is_no_result(waiter: Waiter, client: redis.Redis) -> None:
    future = waiter.wait("retried")
    until(lambda: subscribed(client, "retried"))
    store(client, "retried", meta(status="RETRY"))
    store(client, "retried", meta(2))
    assert future.result(20) == meta(2)


def test_many_wait_over_one_subscription(waiter: Waiter, client: redis.Redis) -> None:
    futures = {f"many-{number}": waiter.wait(f"many-{number}") for number in range(1000)}
    until(lambda: subscribed(client, "many-999"))
    assert sum(int(each["sub"]) > 0 for each in client.client_list()) == 1
    for number, call_id in enumerate(futures):
        store(client, call_id, meta(number), announced=number % 2 == 0)
    assert [each.result(20)["result"] for each in futures.values()] == list(range(1000))


def test_all_who_wait_for_one_call_get_its_result(waiter: Waiter, client: redis.Redis) -> None:
    futures = [waiter.wait("shared") for _ in range(5)]
    waiter.forget("shared", futures[0])
    store(client, "shared", meta())
    assert [each.result(20) for each in futures[1:]] == [meta()] * 4
    assert not futures[0].done()


def test_what_nobody_waits_for_any_more_is_unsubscribed(waiter: Waiter, client: redis.Redis) -> None:
    future = waiter.wait("forgotten")
    until(lambda: subscribed(client, "forgotten"))
    waiter.forget("forgotten", future)
    until(lambda: not subscribed(client, "forgotten"))


def test_a_future_given_up_by_its_owner_keeps_no_other_from_its_result(waiter: Waiter, client: redis.Redis) -> None:
    first, second = waiter.wait("given-up"), waiter.wait("given-up")
    first.cancel()
    store(client, "given-up", meta())
    assert second.result(20) == meta()


def test_garbage_in_place_of_a_result_fails_that_call_and_no_other(waiter: Waiter, client: redis.Redis) -> None:
    garbage, other = waiter.wait("garbage"), waiter.wait("other")
    until(lambda: subscribed(client, "other"))
    client.set(keys.result("garbage"), b"\xff{")
    client.publish(keys.result("garbage"), b"\xff{")
    assert garbage.result(20)["status"] == "FAILURE"
    store(client, "other", meta())
    assert other.result(20) == meta()


def test_a_key_that_is_no_string_fails_no_other_call(waiter: Waiter, client: redis.Redis) -> None:
    client.lpush(keys.result("a-list"), "x")
    listed, other = waiter.wait("a-list"), waiter.wait("beside")
    store(client, "beside", meta())
    assert other.result(20) == meta()
    assert not listed.done()


def test_threads_that_wait_at_once_start_one_thread(waiter: Waiter, client: redis.Redis) -> None:
    futures: list[Future[Meta]] = []
    begin = threading.Barrier(8)

    def wait(number: int) -> None:
        begin.wait(10)
        futures.append(waiter.wait(f"at-once-{number}"))

    waiting = [threading.Thread(target=wait, args=(number,)) for number in range(8)]
    for each in waiting:
        each.start()
    for each in waiting:
        each.join()
    assert len(threads()) == 1
    for number in range(8):
        store(client, f"at-once-{number}", meta())
    assert [each.result(20) for each in futures] == [meta()] * 8


# --- outages


def test_a_result_stored_after_a_restart_of_redis_is_found(server: Server) -> None:
    with closing(Waiter(server.url)) as waiter:
        future = waiter.wait("across")
        with redis.Redis.from_url(server.url) as client:
            until(lambda: subscribed(client, "across"))
            client.config_set("appendfsync", "always")
            store(client, "kept", meta(), announced=False)
        server.kill()
        assert until(lambda: waiter.failure, what="the outage's notice")
        server.start()
        assert waiter.wait("kept").result(30) == meta()
        with redis.Redis.from_url(server.url) as client:
            store(client, "across", meta(2))
        assert future.result(30) == meta(2)
        until(lambda: waiter.failure is None)
    assert not threads()


def test_a_cut_connection_is_made_anew(waiter: Waiter, client: redis.Redis) -> None:
    future = waiter.wait("cut")
    until(lambda: subscribed(client, "cut"))
    client.client_kill_filter(_type="pubsub")
    store(client, "cut", meta(), announced=False)
    assert future.result(20) == meta()


def test_while_nobody_answers_the_failure_says_so_without_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with closing(Waiter(f"redis://:hunter22@127.0.0.1:{taken.getsockname()[1]}/0")) as waiter:
            future = waiter.wait("never")
            failure = until(lambda: waiter.failure) or ""
            assert "connecting" in failure
            assert "hunter22" not in failure
    with pytest.raises(CancelledError):
        future.result(0)


# --- the end


def test_close_ends_the_thread_and_cancels_who_waits(redis_url: str) -> None:
    waiter = Waiter(redis_url)
    future = waiter.wait("never")
    waiter.close()
    assert not threads()
    with pytest.raises(CancelledError):
        future.result(0)


def test_close_before_the_first_wait_and_twice_is_nothing(redis_url: str) -> None:
    waiter = Waiter(redis_url)
    waiter.close()
    waiter.close()


def test_after_the_end_nothing_starts_again(redis_url: str) -> None:
    waiter = Waiter(redis_url)
    future = waiter.wait("late")
    waiter.close()
    waiter.forget("late", future)
    assert waiter.wait("later").cancelled()
    assert not threads()


def test_it_may_be_closed_at_any_moment_of_its_start(redis_url: str) -> None:
    for _ in range(20):
        waiter = Waiter(redis_url)
        future = waiter.wait("short")
        waiter.close()
        assert future.cancelled()
    assert not threads()


def test_closing_gives_the_connections_back(redis_url: str, client: redis.Redis) -> None:
    def others() -> int:
        return len(client.client_list()) - 1

    before = others()
    waiter = Waiter(redis_url)
    waiter.wait("x")
    until(lambda: subscribed(client, "x"))
    waiter.close()
    until(lambda: others() <= before)

"""Calls that run, and how they hear of their cancellation."""

import threading
import time
from collections.abc import Iterator

import pytest
import redis

from gaia.store import cancel, keys
from gaia.store.connection import connect
from tasks.delivery import running as running_module
from tasks.delivery.running import Running
from tests.support.waiting import until


@pytest.fixture
def running(redis_url: str) -> Iterator[Running]:
    with connect(redis_url) as client:
        found = Running(client)
        yield found
        found.close()
    assert not [each for each in threading.enumerate() if each.name == "gaia-cancel"]


def wait_connected(running: Running) -> None:
    until(lambda: running._connected_at is not None, what="the subscription")


def test_a_running_call_hears_of_its_cancellation(running: Running, client: redis.Redis) -> None:
    with running.entered("runs") as token, running.entered("other") as other:
        assert not token.is_set()
        wait_connected(running)
        cancel.request(client, "runs")
        assert token.wait(20)
        assert not other.is_set()


def test_a_call_cancelled_before_it_entered_is_set_at_once(running: Running, client: redis.Redis) -> None:
    cancel.request(client, "queued")
    with running.entered("queued") as token:
        assert token.is_set()


def test_a_call_that_was_marked_when_it_was_fetched_is_set_at_once(running: Running) -> None:
    with running.entered("marked", marked=True) as token:
        assert token.is_set()


def test_a_mark_made_between_fetch_and_entry_is_not_missed(running: Running, client: redis.Redis) -> None:
    with running.entered("first"):
        wait_connected(running)
        fetched_at = time.monotonic()
        cancel.request(client, "between")
        until(lambda: "between" in running._heard)
        with running.entered("between", fetched_at=fetched_at) as token:
            assert token.is_set()


def test_a_mark_made_before_the_listener_connected_is_not_missed(running: Running, client: redis.Redis) -> None:
    fetched_at = time.monotonic()
    cancel.request(client, "early")
    with running.entered("early", fetched_at=fetched_at) as token:
        assert token.is_set()


def test_a_mark_made_while_the_connection_was_cut_is_found(running: Running, client: redis.Redis) -> None:
    with running.entered("cut") as token:
        wait_connected(running)
        client.set(keys.cancel("cut"), 1, ex=60)  # as a request whose announcement nobody heard
        client.client_kill_filter(_type="pubsub")
        assert token.wait(20)


def test_every_run_of_a_call_is_told(running: Running, client: redis.Redis) -> None:
    with running.entered("twice") as first, running.entered("twice") as second:
        wait_connected(running)
        cancel.request(client, "twice")
        assert first.wait(20)
        assert second.wait(20)


def test_what_left_is_told_nothing(running: Running, client: redis.Redis) -> None:
    with running.entered("left") as token:
        wait_connected(running)
    assert not running._tokens
    cancel.request(client, "left")
    until(lambda: "left" in running._heard)
    assert not token.is_set()


def test_a_callback_that_fails_keeps_no_other_call_from_being_told(
    running: Running, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError("x")

    with (
        running.entered("fails") as first,
        running.entered("fails") as second,
        first.calling(fail),
        second.calling(fail),
    ):
        wait_connected(running)
        cancel.request(client, "fails")
        assert first.wait(20)
        assert second.wait(20)
        with running.entered("next") as third:
            cancel.request(client, "next")
            assert third.wait(20)
    assert "could not be woken" in caplog.text


def test_a_worker_past_its_grace_stops_what_runs_and_what_comes(running: Running) -> None:
    with running.entered("at-the-end") as token:
        before = running.stopping
        running.stop()
        assert (before, running.stopping) == (False, True)
        assert token.is_set()
        assert not running.was_cancelled("at-the-end")
    with running.entered("past-the-end") as token:
        assert token.is_set()


def test_who_stopped_a_call_is_told_apart(running: Running, client: redis.Redis) -> None:
    cancel.request(client, "by-caller")
    assert running.was_cancelled("by-caller")
    assert not running.was_cancelled("by-worker")


def test_announcements_are_remembered_up_to_a_bound(
    running: Running, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "REMEMBERED", 3)
    with running.entered("x"):
        wait_connected(running)
        for number in range(5):
            client.publish(keys.CANCEL_CHANNEL, f"heard-{number}")
        until(lambda: "heard-4" in running._heard)
        assert list(running._heard) == ["heard-2", "heard-3", "heard-4"]


def test_an_announcement_of_no_text_ends_nothing(running: Running, client: redis.Redis) -> None:
    with running.entered("after-garbage") as token:
        wait_connected(running)
        client.publish(keys.CANCEL_CHANNEL, b"\xff\0")
        cancel.request(client, "after-garbage")
        assert token.wait(20)


def test_with_redis_away_calls_run_on_uncancelled() -> None:
    with connect("redis://127.0.0.1:1/0") as client:
        running = Running(client)
        with running.entered("runs") as token:
            assert not token.is_set()
            assert not running.was_cancelled("runs")
        running.close()
    assert not [each for each in threading.enumerate() if each.name == "gaia-cancel"]


def test_closing_one_that_never_ran_is_nothing(redis_url: str) -> None:
    with connect(redis_url) as client:
        running = Running(client)
        running.close()
        running.close()

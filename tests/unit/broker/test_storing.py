"""Outcomes that are stored elsewhere before their messages end."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from gaia.store.connection import connect
from tasks import metrics
from tasks.broker.holder import Holder
from tasks.broker.storing import Storer
from tasks.cli.server import free_port
from tests.support import cluster
from tests.support.waiting import until


@pytest.fixture
def holder() -> Iterator[Holder]:
    found = Holder()
    yield found
    if found.storer is not None:
        found.storer.close()
    found.close()


def storing(url: str) -> Storer:
    found = Storer(connect(url, reply_timeout_s=1, connect_timeout_s=1, retries=0), url)
    found.start()
    return found


def ended(holder: Holder, tag: str, *, until_s: float = 60.0) -> None:
    holder.fetched(tag, "f", time.monotonic() + until_s, {})
    holder.result(tag, f"result-{tag}", b"value", 60)
    holder.end(tag)


def test_a_result_is_stored_and_announced_before_its_message_is_committed(fresh_url: str, holder: Holder) -> None:
    with redis.Redis.from_url(fresh_url) as client, client.pubsub() as heard:
        heard.subscribe("result-1")
        until(lambda: heard.get_message(timeout=0.1))
        holder.storer = storing(fresh_url)
        ended(holder, "1")
        until(lambda: holder.has_commits)
        (commit,) = holder.take_commits()
        assert commit.is_plain
        assert client.get("result-1") == b"value"
        assert 0 < client.ttl("result-1") <= 60
        assert until(lambda: heard.get_message(timeout=0.1))["data"] == b"value"


def test_while_the_store_is_away_a_message_is_held_and_renewed_beyond_its_deadline(holder: Holder) -> None:
    holder.storer = storing(f"redis://127.0.0.1:{free_port('127.0.0.1')}/0")
    holder.fetched("late", "f", time.monotonic() - 1, {})
    assert holder.due() == []
    ended(holder, "1", until_s=-1)
    assert holder.due() == [("1", "f")]
    assert holder.held() == ["late", "1"]
    assert not holder.has_commits
    until(holder.storer.trouble)


def test_what_another_runs_by_now_is_not_stored(fresh_url: str, holder: Holder) -> None:
    with redis.Redis.from_url(fresh_url) as client:
        holder.fetched("1", "f", time.monotonic() + 60, {})
        holder.lose("1", "f")
        holder.result("1", "result-1", b"value", 60)
        holder.storer = storing(fresh_url)
        holder.end("1")
        until(lambda: holder.has_commits)
        assert client.get("result-1") is None


def test_one_that_the_store_refuses_keeps_no_other_waiting(fresh_url: str, holder: Holder) -> None:
    before = metrics.BROKER_FAILURES.labels("results")._value.get()
    with redis.Redis.from_url(fresh_url) as client:
        holder.storer = storing(fresh_url)
        holder.fetched("odd", "f", time.monotonic() + 60, {})
        holder.result("odd", "result-odd", b"value", -5)  # which SET refuses
        holder.end("odd")
        until(lambda: metrics.BROKER_FAILURES.labels("results")._value.get() > before)
        ended(holder, "1")
        until(lambda: client.get("result-1") == b"value", 10)
        # A message ends once the answer about its result was read.
        until(lambda: holder.held() == ["odd"])


def test_what_the_store_refused_is_not_announced(tmp_path: Path, holder: Holder) -> None:
    with cluster.valkey(tmp_path / "small") as url, redis.Redis.from_url(url) as client, client.pubsub() as heard:
        client.config_set("maxmemory", "1")
        heard.subscribe("result-1")
        until(lambda: heard.get_message(timeout=0.1))
        holder.storer = storing(url)
        ended(holder, "1")
        until(holder.storer.trouble)
        assert heard.get_message(timeout=0.2) is None
        client.config_set("maxmemory", "0")
        until(lambda: heard.get_message(timeout=0.1))
        assert client.get("result-1") == b"value"


def test_while_a_lease_is_not_certain_its_result_waits(fresh_url: str, holder: Holder) -> None:
    with redis.Redis.from_url(fresh_url) as client:
        holder.storer = storing(fresh_url)
        holder.fetched("1", "f", time.monotonic() + 60, {})
        holder._leases["1"] = holder._leases["1"]._replace(since=time.monotonic() - 60)
        holder.result("1", "result-1", b"value", 60)
        holder.end("1")
        assert holder.may_store("1") is None
        ended(holder, "2")
        until(lambda: client.get("result-2") == b"value")
        assert client.get("result-1") is None
        holder.renewed_at = time.monotonic()
        until(lambda: client.get("result-1") == b"value")


def test_one_that_comes_back_as_it_is_looked_at_keeps_its_result(holder: Holder) -> None:
    holder.fetched("1", "f", time.monotonic() + 60, {})
    holder.lose("1", "f")
    holder.fetched("1", "g", time.monotonic() + 60, {})
    assert holder.may_store("1")
    assert holder.holds("1")


def test_a_failure_of_any_kind_ends_no_thread_and_is_told(holder: Holder) -> None:
    holder.storer = Storer(connect("redis://a..b:6379/0", retries=0), "redis://a..b:6379/0")
    holder.storer.start()
    ended(holder, "1")
    assert "results cannot be stored" in until(holder.storer.trouble)[0]
    assert holder.held() == ["1"]


def test_after_its_end_it_begins_once_more(fresh_url: str, holder: Holder) -> None:
    with redis.Redis.from_url(fresh_url) as client:
        holder.storer = storing(fresh_url)
        holder.storer.close()
        holder.storer.start()
        ended(holder, "1")
        until(lambda: client.get("result-1") == b"value")

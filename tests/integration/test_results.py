"""Results in a Redis of their own, which goes away and comes back."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis
from celery import Celery

from gaia import Gaia
from gaia.errors import InternalError
from tests.support import cluster
from tests.support.cluster import Server, Worker, endpoint, get
from tests.support.probe import Append, Echo, Fail
from tests.support.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Server]:
    with cluster.server(tmp_path / "results") as found:
        yield found


def working(url: str, store: Server, log: Path, name: str = "first") -> AbstractContextManager[Worker]:
    return cluster.probe_worker(url, log=log, name=name, GAIA_RESULT_URL=store.url, GAIA_WORKER__GRACE_S="3")


def unready(url: str) -> list[str]:
    reasons: list[str] = json.loads(get(f"{endpoint(url)}/readiness")[1])["reasons"]
    return reasons


def test_an_outage_of_the_store_costs_no_result_and_no_second_run(
    fresh_url: str, store: Server, tmp_path: Path
) -> None:
    words, runs = [f"{number:02}" for number in range(20)], tmp_path / "runs"
    with (
        working(fresh_url, store, tmp_path / "log") as worker,
        Gaia(fresh_url, store.url) as g,
        redis.Redis.from_url(fresh_url) as broker,
    ):
        assert g.submit(Echo("before")).get(timeout=30).text == "before"
        store.kill()
        failing, late = g.submit(Fail("for good")), g.submit(Append(str(runs), "late"), deadline=1)
        pending = [g.submit(Append(str(runs), word)) for word in words]
        # What waits for the store takes the worker's places: it does not gather outcomes without end.
        until(lambda: any("results cannot be stored" in each for each in unready(fresh_url)))
        assert 4 <= len(runs.read_text().split()) < len(words)
        assert broker.llen("probe") > 0
        store.start()
        assert [each.get(timeout=30).text for each in pending] == words
        assert late.get(timeout=30).text == "late"
        with pytest.raises(InternalError):
            failing.get(timeout=30)
        assert sorted(runs.read_text().split()) == sorted([*words, "late"])
        until(lambda: unready(fresh_url) == [])
        until(lambda: broker.hlen("unacked") == 0)
        assert "brought to its end" not in worker.text()


def test_a_worker_that_ends_meanwhile_gives_its_calls_back(fresh_url: str, store: Server, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Gaia(fresh_url, store.url) as g:
        with working(fresh_url, store, tmp_path / "first") as worker:
            store.kill()
            pending = [g.submit(Append(str(runs), word)) for word in ("a", "b")]
            until(lambda: runs.exists() and len(runs.read_text().split()) == 2)
            assert cluster.stop(worker.process) == 0
        store.start()
        with working(fresh_url, store, tmp_path / "second", "second"):
            assert [each.get(timeout=30).text for each in pending] == ["a", "b"]
    assert sorted(runs.read_text().split()) == ["a", "a", "b", "b"]


def test_a_store_that_is_away_from_the_beginning_shows_before_the_first_call(
    fresh_url: str, store: Server, tmp_path: Path
) -> None:
    store.kill()
    with working(fresh_url, store, tmp_path / "log") as worker:
        until(lambda: any("results cannot be stored" in each for each in unready(fresh_url)))
        assert "results cannot be stored at redis://***@127.0.0.1" in worker.text()
        store.start()
        until(lambda: unready(fresh_url) == [])


def test_a_stock_producer_hears_of_its_result_there(fresh_url: str, store: Server, tmp_path: Path) -> None:
    with (
        working(fresh_url, store, tmp_path / "log"),
        Celery("stock", broker=fresh_url, backend=store.url, set_as_current=False) as stock,
    ):
        sent = stock.send_task("probe.echo", kwargs={"text": "hello"}, queue="probe")
        assert sent.get(timeout=30)["text"] == "hello"


def test_a_worker_that_ends_as_the_store_comes_back_stores_what_it_has(
    fresh_url: str, store: Server, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    with Gaia(fresh_url, store.url) as g, working(fresh_url, store, tmp_path / "log") as worker:
        store.kill()
        pending = g.submit(Append(str(runs), "a"))
        until(runs.exists)
        worker.process.terminate()
        until(lambda: "the worker takes nothing more" in worker.text())
        store.start()
        assert pending.get(timeout=30).text == "a"
    assert runs.read_text().split() == ["a"]

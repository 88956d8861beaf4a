"""Workers that are killed or stopped under their calls; each test has a database and workers of its own."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from gaia import Gaia, errors
from gaia.store import keys
from tests.support import cluster
from tests.support.probe import Die, Echo, Hold, Poison, Rest
from tests.support.waiting import until


@pytest.fixture
def gaia(fresh_url: str) -> Iterator[Gaia]:
    with Gaia(fresh_url) as found:
        yield found


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


def test_a_call_survives_its_killed_worker(fresh_url: str, gaia: Gaia, tmp_path: Path, client: redis.Redis) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "first.log") as first:
        pending = gaia.submit(Die(str(tmp_path / "marker")))
        until(lambda: first.process.poll() is not None)
    with cluster.probe_worker(fresh_url, log=tmp_path / "second.log"):
        assert pending.get(timeout=40).text == "survived"
    assert client.get(f"gaia:lost:{pending.id}") == b"1"


def test_a_call_that_lost_too_many_workers_becomes_a_dead_letter(
    fresh_url: str, gaia: Gaia, client: redis.Redis, tmp_path: Path, marks: tuple[str, str]
) -> None:
    pending = gaia.submit(Hold(*marks))
    client.set(f"gaia:lost:{pending.id}", 3)
    with cluster.probe_worker(fresh_url, log=tmp_path / "worker.log"):
        with pytest.raises(errors.WorkerLostTooOften):
            pending.get(timeout=20)
        letter = until(lambda: gaia.dead.show(pending.id))
    assert letter.lost_leases == 3
    assert [each.what for each in letter.history] == ["worker 3 was lost"]
    assert not Path(marks[0]).exists()


@pytest.mark.timeout(180)
def test_what_kills_its_workers_becomes_a_dead_letter_and_its_neighbours_do_not(
    fresh_url: str, gaia: Gaia, tmp_path: Path
) -> None:
    """Held together with it, they lose their workers, too."""
    poison = gaia.submit(Poison())
    neighbours = [gaia.submit(Rest(0.5)) for _ in range(10)]
    for number in range(4):
        with cluster.probe_worker(fresh_url, log=tmp_path / f"{number}.log") as worker:
            until(lambda worker=worker: worker.process.poll() is not None or poison.ready(), 60, what="an end")
            if worker.process.poll() is None:
                assert {each.get(timeout=60).text for each in neighbours} == {"rested"}
    with pytest.raises(errors.WorkerLostTooOften):
        poison.get(timeout=1)
    assert [each.id for each in gaia.dead.list()] == [poison.id]


def test_a_run_whose_lease_was_lost_is_stopped_and_counts_for_nothing(
    fresh_url: str, gaia: Gaia, client: redis.Redis, tmp_path: Path, marks: tuple[str, str]
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "first.log") as first:
        pending = gaia.submit(Hold(*marks))
        until(lambda: Path(marks[0]).exists())
        first.process.send_signal(signal.SIGSTOP)
        try:
            with cluster.probe_worker(fresh_url, log=tmp_path / "second.log"):
                until(lambda: len(Path(marks[0]).read_text()) == 2, 30, what="a second run")
                first.process.send_signal(signal.SIGCONT)
                until(lambda: "was lost" in first.text(), what="the first worker's notice")
                assert not pending.ready()
                Path(marks[1]).touch()
                assert pending.get(timeout=20).text == "released"
                until(lambda: client.hlen("unacked") == client.hlen(keys.HELD) == 0)
        finally:
            first.process.send_signal(signal.SIGCONT)
    assert len(Path(marks[0]).read_text()) == 2


def test_the_message_is_one_that_stock_celery_reads(gaia: Gaia, client: redis.Redis, fresh_url: str) -> None:
    gaia.submit(Echo("for anybody"), priority=4)
    message = json.loads(client.lindex(keys.queue_list("probe", 4), 0))
    stock = Celery("stock", broker=fresh_url, set_as_current=False)
    with stock, stock.connection_for_read() as connection, connection.SimpleQueue("probe") as queue:
        found = queue.get(timeout=10)
        found.ack()
    assert found.headers["task"] == "probe.echo"
    assert found.payload[:2] == [[], {"text": "for anybody"}]
    assert message["properties"]["correlation_id"] == found.headers["id"]


def test_a_stopping_worker_hands_back_what_it_cannot_finish(
    fresh_url: str, gaia: Gaia, client: redis.Redis, tmp_path: Path, marks: tuple[str, str]
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "first.log", GAIA_WORKER__GRACE_S="0.5") as worker:
        pending = gaia.submit(Hold(*marks))
        until(Path(marks[0]).exists)
        assert cluster.stop(worker.process) == 0
    assert client.llen("probe") == 1
    assert client.hlen("unacked") == client.hlen("gaia:held") == client.zcard("unacked_index") == 0
    Path(marks[1]).touch()
    with cluster.probe_worker(fresh_url, log=tmp_path / "second.log"):
        assert pending.get(timeout=20).text == "released"

"""Our transport under the ways in which Celery starts, ends and forks workers."""

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from gaia import Gaia, errors
from gaia.store import keys
from tests.chaos.proxy import Proxy
from tests.chaos.server import Server
from tests.support import cluster
from tests.support.evidence import nothing_held, started
from tests.support.probe import Echo, Hold, Quit
from tests.support.waiting import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "redis") as found:
        yield found


@pytest.fixture
def gaia(server: Server) -> Iterator[Gaia]:
    with Gaia(server.url) as found:
        yield found


def celery_argv(*options: str) -> list[str]:
    """Give Celery's own command line over the app of the test operations."""
    app = ("-m", "celery", "-A", "tests.support.probe_app")
    return [sys.executable, *app, "worker", "-Q", "probe", "-c", "2", "-l", "INFO", *options]


def test_a_pool_of_processes_is_refused(server: Server, tmp_path: Path) -> None:
    """Its processes would store no result, and one that ends would give back what the others run."""
    argv = celery_argv("-P", "processes")
    log = tmp_path / "worker.log"
    worker = cluster.executed(argv, {"GAIA_REDIS_URL": server.url}, log)
    try:
        assert worker.process.wait(30) == 1
    finally:
        cluster.stop(worker.process)
    assert "a pool of processes cannot be used" in worker.text()


def test_a_worker_that_runs_calls_in_its_loop_stores_results_and_ends(
    gaia: Gaia, server: Server, tmp_path: Path
) -> None:
    worker = cluster.executed(celery_argv("-P", "solo"), {"GAIA_REDIS_URL": server.url}, tmp_path / "worker.log")
    try:
        pendings = [gaia.submit(Echo("x")) for _ in range(5)]
        assert all(each.get(timeout=30).text == "x" for each in pendings)
    finally:
        assert cluster.stop(worker.process) == 0
    assert nothing_held(server.client)


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_service_that_raises_what_is_no_exception_ends_its_call_alone(
    gaia: Gaia, server: Server, tmp_path: Path, pool: str
) -> None:
    worker = cluster.executed(celery_argv("-P", pool), {"GAIA_REDIS_URL": server.url}, tmp_path / "worker.log")
    try:
        with pytest.raises(errors.InternalError):
            gaia.submit(Quit()).get(timeout=15)
        assert gaia.submit(Echo("x")).get(timeout=15).text == "x"
        until(lambda: nothing_held(server.client))
    finally:
        cluster.stop(worker.process)


def test_what_has_ended_is_not_run_again_over_a_half_open_connection(
    gaia: Gaia, server: Server, tmp_path: Path, marks: tuple[str, str]
) -> None:
    with Proxy(server.port) as proxy, cluster.probe_worker(proxy.url, log=tmp_path / "worker.log"):
        pending = gaia.submit(Hold(*marks))
        until(lambda: started(marks) == 1)
        with cluster.probe_worker(server.url, log=tmp_path / "second.log"):
            proxy.go_silent()
            Path(marks[1]).touch()
            assert pending.get(timeout=40).text == "released"
            until(lambda: nothing_held(server.client))
        assert started(marks) == 1


@pytest.mark.parametrize("signals", [["SIGQUIT"], ["SIGTERM", "SIGQUIT"], ["SIGINT", "SIGINT"]], ids="-".join)
def test_a_cold_end_commits_what_ends_and_gives_back_the_rest(
    gaia: Gaia, server: Server, tmp_path: Path, marks: tuple[str, str], signals: list[str]
) -> None:
    with cluster.probe_worker(server.url, log=tmp_path / "worker.log", GAIA_WORKER__GRACE_S="8") as worker:
        pendings = [gaia.submit(Hold(*marks)) for _ in range(6)]
        until(lambda: started(marks) == 4)
        for each in signals:
            worker.process.send_signal(getattr(signal, each))
            threading.Event().wait(0.5)
        Path(marks[1]).touch()
        worker.process.wait(30)
        log = worker.text()
    done = sum(gaia.stored(each.id) is not None for each in pendings)
    assert log.count("succeeded in") == done, log[-3000:]
    assert (server.client.llen("probe"), nothing_held(server.client)) == (6 - done, True), log[-3000:]
    assert not list(server.client.scan_iter("gaia:lost:*"))


def test_calls_that_wait_for_a_rate_limit_survive_a_reset(gaia: Gaia, server: Server, tmp_path: Path) -> None:
    with Proxy(server.port) as proxy, cluster.probe_worker(proxy.url, log=tmp_path / "worker.log") as worker:
        control = Celery(broker=server.url, set_as_current=False).control
        control.rate_limit("probe.echo", "1/m")
        until(lambda: "rate limit" in worker.text())
        pendings = [gaia.submit(Echo("x")) for _ in range(4)]
        pendings[0].get(timeout=20)
        with cluster.probe_worker(server.url, log=tmp_path / "second.log"):
            assert server.client.hlen(keys.HELD) == 3
            proxy.cut()
            assert all(each.get(timeout=20) for each in pendings), worker.text()


def test_results_are_committed_after_the_last_queue_was_left(
    gaia: Gaia, server: Server, tmp_path: Path, marks: tuple[str, str]
) -> None:
    with cluster.probe_worker(server.url, log=tmp_path / "worker.log") as worker:
        pending = gaia.submit(Hold(*marks))
        until(lambda: started(marks) == 1)
        control = Celery(broker=server.url, set_as_current=False).control
        for queue in control.inspect(timeout=3).active_queues().popitem()[1]:
            control.cancel_consumer(queue["name"])
        threading.Event().wait(3)
        Path(marks[1]).touch()
        assert pending.get(timeout=15).text == "released", worker.text()


def test_a_worker_that_drains_gives_back_at_once_what_waits_for_a_slot(
    gaia: Gaia, server: Server, tmp_path: Path, marks: tuple[str, str]
) -> None:
    with cluster.probe_worker(server.url, log=tmp_path / "worker.log") as worker:
        for _ in range(100):
            gaia.submit(Echo("short"))  # so that calls are fetched ahead
        until(lambda: nothing_held(server.client) and not server.client.llen("probe"))
        pendings = [gaia.submit(Hold(*marks)) for _ in range(8)]
        until(lambda: started(marks) == 4 and server.client.hlen(keys.HELD) == 8)
        worker.process.send_signal(signal.SIGTERM)
        until(lambda: server.client.llen("probe") == 4, 5)
        with cluster.probe_worker(server.url, log=tmp_path / "second.log"):
            until(lambda: started(marks) == 8)
            Path(marks[1]).touch()
            assert all(each.get(timeout=20) for each in pendings)
    assert started(marks) == 8
    assert not list(server.client.scan_iter("gaia:lost:*"))

"""The pages of real workers: what they show, and that ready means consuming."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from gaia import Gaia, api, files, network
from gaia.errors import GaiaError
from tests.support import cluster
from tests.support.cluster import endpoint, get
from tests.support.probe import Burn, Deafen, Echo, Fail, Flaky, Hold, Snooze
from tests.support.waiting import until


@pytest.fixture
def control(fresh_url: str) -> Iterator[Celery]:
    app = Celery("asker", broker=fresh_url, set_as_current=False)
    yield app
    app.close()


def pings(control: Celery) -> bool:
    return bool(control.control.inspect(timeout=1.0).ping())


def samples(address: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = get(f"{address}/metrics")[1]
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def of(address: str, name: str, **labels: str) -> float:
    return samples(address).get((name, tuple(sorted(labels.items()))), 0.0)


def status(address: str, page: str) -> tuple[int, list[str]]:
    code, text = get(address + page)
    found: dict[str, Any] = json.loads(text)
    return code, found["reasons"]


def test_what_becomes_of_calls_is_counted(fresh_url: str, tmp_path: Path) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"), Gaia(fresh_url) as g:
        where = endpoint(fresh_url, "probe")
        g.submit(Echo("x")).get(timeout=20)
        g.submit(Flaky(3)).get(timeout=20)
        g.submit(Snooze(str(tmp_path / "marks"), 3)).get(timeout=20)
        with pytest.raises(GaiaError):
            g.submit(Fail("hunter2222")).get(timeout=20)
        g.submit(Fail("hunter2222"), result=False)
        until(lambda: of(where, "gaia_dead_letters_total", reason="unread_failure") == 1)
        assert of(where, "gaia_operations_total", operation="probe.echo", outcome="ok") == 1
        assert of(where, "gaia_retries_total", operation="probe.flaky") == 2
        assert of(where, "gaia_queue_wait_seconds_count", operation="probe.flaky") == 1
        assert of(where, "gaia_operation_seconds_count", operation="probe.flaky") == 3
        assert of(where, "gaia_queue_wait_seconds_count", operation="probe.snooze") == 1
        assert of(where, "gaia_operation_seconds_count", operation="probe.snooze") == 4
        assert of(where, "gaia_errors_total", operation="probe.fail", error="InternalError") == 2
        until(lambda: of(where, "gaia_commits_total") >= 6)
        assert of(where, "gaia_turns_total") > 0
        assert of(where, "gaia_slots") == 4
        assert of(where, "gaia_worker_ready") == 1
        assert "hunter2222" not in get(f"{where}/metrics")[1]


def test_what_a_call_costs_is_told_by_operation(fresh_url: str, tmp_path: Path) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"), Gaia(fresh_url) as g:
        where = endpoint(fresh_url, "probe")
        started, release = tmp_path / "started", tmp_path / "release"
        waiting = g.submit(Hold(str(started), str(release)))
        for _ in range(2):
            g.submit(Burn(0.3)).get(timeout=60)
        release.touch()
        waiting.get(timeout=20)
        burnt = of(where, "gaia_operation_cpu_seconds_total", operation="probe.burn")
        assert burnt >= 0.6
        assert of(where, "gaia_operation_cpu_seconds_total", operation="probe.hold") < burnt / 2


BY_EXPRESS: dict[str, Any] = {}
BY_CELERY = {"expires": 600}
FRAME = '[[], , {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


@pytest.mark.parametrize("options", [BY_EXPRESS, BY_CELERY], ids=["express", "celery"])
def test_the_bytes_of_messages_and_results_are_told_by_operation(
    fresh_url: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    call, large = Echo("x", body=b"123456"), os.urandom(100_000)
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"), Gaia(fresh_url) as g:
        where = endpoint(fresh_url, "probe")

        def moved(direction: str) -> float:
            return of(where, f"gaia_operation_{direction}_bytes_total", operation="probe.echo")

        g.submit(call, **options).get(timeout=20)
        assert moved("received") == len(FRAME + json.dumps(call.fields_json()))
        assert moved("sent") == len(b'{"text":"x","body":"MTIzNDU2"}')
        before = {each: moved(each) for each in ("received", "sent")}
        assert g.submit(Echo("x", body=large), **options).get(timeout=20).body == large
        for each, figure in before.items():
            assert len(large) < moved(each) - figure < len(large) + 1000
        before = {each: moved(each) for each in ("received", "sent")}
        g.submit(call, result=False, **options)
        until(lambda: moved("received") > before["received"])
        until(lambda: of(where, "gaia_operations_running", operation="probe.echo") == 0)
        assert moved("sent") == before["sent"]


def test_no_garbage_makes_a_series(fresh_url: str, tmp_path: Path) -> None:
    noise = [secrets.token_hex(8) for _ in range(60)]
    roots = json.dumps({"data": str(tmp_path)})
    with (
        cluster.worker(fresh_url, "api", "files", "network", log=tmp_path / "log", GAIA_FILES__ROOTS=roots),
        Gaia(fresh_url) as g,
        Celery("foreign", broker=fresh_url, set_as_current=False) as foreign,
    ):
        where = endpoint(fresh_url)
        calls: list[Any] = [files.Read("data:none"), api.Request("http://127.0.0.1:1/"), network.Resolve("localhost")]
        for each in calls:
            with suppress(GaiaError):
                g.submit(each).get(timeout=20)
        before = set(samples(where))
        pending: list[Any] = []
        for word in noise:
            foreign.send_task(f"files.{word}", kwargs={word: word}, queue="files")
            pending += [g.submit(files.Read(f"data:{word}")), g.submit(api.Request(f"http://127.0.0.1:1/{word}"))]
            pending.append(g.submit(api.Request(f"http://10.0.0.1/{word}", tenant=word)))
        for each in pending:
            with suppress(GaiaError):
                each.get(timeout=60)
        until(lambda: of(where, "gaia_dead_letters_total", reason="refused") == len(noise))
        text = get(f"{where}/metrics")[1]
        assert not [word for word in noise if word in text]
        assert len(set(samples(where)) - before) < 40


def test_a_worker_whose_consumer_was_cancelled_answers_ping_and_is_not_ready(
    fresh_url: str, tmp_path: Path, control: Celery
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"):
        where = endpoint(fresh_url)
        assert status(where, "/readiness") == (200, [])
        control.control.cancel_consumer("probe")
        until(lambda: status(where, "/readiness") == (503, ["no queue is consumed"]))
        assert pings(control)
        assert status(where, "/liveness") == (200, [])
        control.control.add_consumer("probe")
        until(lambda: status(where, "/readiness")[0] == 200)


def test_a_worker_whose_consumer_is_dead_answers_ping_and_is_not_ready(
    fresh_url: str, tmp_path: Path, control: Celery
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"), Gaia(fresh_url) as g:
        where = endpoint(fresh_url)
        g.submit(Deafen()).get(timeout=20)
        reasons = until(lambda: status(where, "/readiness")[1], 30)
        assert "nothing was fetched or waited for" in reasons[0]
        assert pings(control)
        assert status(where, "/health")[0] == 503
        assert of(where, "gaia_worker_ready") == 0


def test_a_worker_whose_slots_are_taken_is_ready_and_one_that_ends_is_not(
    fresh_url: str, tmp_path: Path, marks: tuple[str, str]
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log") as worker, Gaia(fresh_url) as g:
        where = endpoint(fresh_url)
        held = [g.submit(Hold(*marks)) for _ in range(8)]
        until(lambda: of(where, "gaia_operations_running", operation="probe.hold") == 4)
        assert status(where, "/readiness") == (200, [])
        worker.process.terminate()
        until(lambda: status(where, "/readiness") == (503, ["the worker ends"]))
        assert status(where, "/liveness")[0] == 200
        Path(marks[1]).touch()
        assert held[0].get(timeout=30).text == "released"


def test_an_outage_of_redis_is_no_reason_to_kill_a_worker(tmp_path: Path) -> None:
    with ExitStack() as workers:
        with cluster.valkey(tmp_path / "valkey") as url:
            workers.enter_context(cluster.probe_worker(url, log=tmp_path / "log"))
            where = endpoint(url)
            assert status(where, "/readiness")[0] == 200
        until(lambda: status(where, "/readiness")[0] == 503, 30)
        assert status(where, "/liveness") == (200, [])


def test_a_worker_whose_connections_were_cut_is_ready_again(
    fresh_url: str, tmp_path: Path, client: "redis.Redis"
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log") as worker, Gaia(fresh_url) as g:
        where = endpoint(fresh_url)
        number = fresh_url.rpartition("/")[2]
        for each in client.client_list():
            if each["db"] == number:
                client.client_kill_filter(_id=each["id"])
        until(lambda: "Trying to reconnect" in worker.text() or "Connection to broker lost" in worker.text(), 30)
        assert g.submit(Echo("x")).get(timeout=30).text == "x"
        until(lambda: status(where, "/readiness") == (200, []), 30)
        turned = of(where, "gaia_loop_age_seconds")
        assert turned < 5
        assert status(where, "/liveness") == (200, [])


def test_health_tells_of_each_subsystem_that_the_worker_serves(fresh_url: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    roots = json.dumps({"data": str(gone)})
    with cluster.worker(fresh_url, "files", "api", log=tmp_path / "log", GAIA_FILES__ROOTS=roots):
        where = endpoint(fresh_url)
        assert status(where, "/health") == (200, [])
        assert status(where, "/health/api") == (200, [])
        assert get(f"{where}/health/browser")[0] == 404
        for each in gone.rglob("*"):
            each.is_file() and each.unlink()
        (gone / ".gaia").rename(tmp_path / "moved")
        gone.rmdir()
        reasons = until(lambda: status(where, "/health/files")[1], 30)
        assert "data" in reasons[0]


def test_celerys_own_command_serves_pages_too(fresh_url: str, tmp_path: Path) -> None:
    celery = [str(Path(sys.executable).with_name("celery")), "-A", "tests.support.probe_app"]
    argv = [*celery, "worker", "-Q", "probe", "-P", "solo", "-n", "s@%h"]
    with (tmp_path / "log").open("wb") as out:
        process = subprocess.Popen(
            argv, cwd=cluster.ROOT, env={**cluster.clean_environ(), "GAIA_REDIS_URL": fresh_url}, stdout=out, stderr=out
        )
    try:
        with Gaia(fresh_url) as g:
            until(g.nodes, 60)
        where = endpoint(fresh_url)
        until(lambda: status(where, "/readiness") == (200, []), 60)
    finally:
        cluster.stop(process)


def test_a_port_that_is_taken_stops_the_start_and_is_named(fresh_url: str, tmp_path: Path) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"):
        port = endpoint(fresh_url).rpartition(":")[2]
        command = [sys.executable, "-m", "tasks.cli.main", "worker", "network"]
        environ = {**cluster.clean_environ(), "GAIA_REDIS_URL": fresh_url, "GAIA_WORKER__PORT": port}
        ended = subprocess.run(
            command, cwd=cluster.ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 1
        assert "GAIA_WORKER__PORT" in ended.stderr


def test_pages_for_others_need_a_token(fresh_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tasks.cli.main", "worker", "network"]
    environ = {**cluster.clean_environ(), "GAIA_REDIS_URL": fresh_url, "GAIA_WORKER__HOST": "0.0.0.0"}  # noqa: S104 - the case
    ended = subprocess.run(
        command, cwd=cluster.ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "GAIA_MONITOR__TOKEN" in ended.stderr

"""Our transport under a whole worker: its end, half-open connections, TLS, stock tools, and what must not leak."""

import json
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from gaia import Gaia
from gaia.store import keys
from tests.chaos.proxy import Proxy
from tests.chaos.server import Server
from tests.support import cluster
from tests.support.evidence import nothing_held, started
from tests.support.probe import Echo, Hold
from tests.support.waiting import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "redis") as found:
        yield found


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as found:
        yield found


@pytest.fixture
def worker(proxy: Proxy, tmp_path: Path) -> Iterator[cluster.Worker]:
    with cluster.probe_worker(proxy.url, log=tmp_path / "worker.log") as found:
        yield found


@pytest.fixture
def gaia(server: Server) -> Iterator[Gaia]:
    with Gaia(server.url) as found:
        yield found


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


# --- the end of a worker


@pytest.mark.parametrize("how", ["SIGTERM", "remote"])
def test_calls_that_end_while_the_worker_drains_are_committed(
    gaia: Gaia, server: Server, worker: cluster.Worker, marks: tuple[str, str], how: str
) -> None:
    pendings = [gaia.submit(Hold(*marks)) for _ in range(4)]
    until(lambda: started(marks) == 4)
    later = [gaia.submit(Echo("later")) for _ in range(10)]
    if how == "SIGTERM":
        worker.process.send_signal(signal.SIGTERM)
    else:
        Celery(broker=server.url, set_as_current=False).control.shutdown()
    until(lambda: "takes nothing more" in worker.text() or "shutdown" in worker.text())
    Path(marks[1]).touch()
    assert worker.process.wait(30) == 0
    assert [gaia.stored(each.id) is not None for each in pendings] == [True] * 4
    assert nothing_held(server.client)
    assert server.client.llen("probe") == sum(gaia.stored(each.id) is None for each in later)
    assert not list(server.client.scan_iter("gaia:lost:*"))


def test_leases_are_renewed_while_the_worker_drains(
    gaia: Gaia, server: Server, worker: cluster.Worker, marks: tuple[str, str], tmp_path: Path
) -> None:
    pending = gaia.submit(Hold(*marks))
    until(lambda: started(marks) == 1)
    worker.process.send_signal(signal.SIGTERM)
    with cluster.probe_worker(server.url, log=tmp_path / "second.log"):
        pause(9)  # longer than a lease and two sweeps
        Path(marks[1]).touch()
        assert pending.get(timeout=20).text == "released"
    assert started(marks) == 1


# --- bad lines


def test_a_worker_comes_back_from_half_open_connections(
    gaia: Gaia, proxy: Proxy, worker: cluster.Worker, server: Server
) -> None:
    gaia.submit(Echo("before")).get(timeout=20)
    proxy.go_silent()
    pendings = [gaia.submit(Echo("after")) for _ in range(8)]
    assert [each.get(timeout=40).text for each in pendings] == ["after"] * 8
    until(lambda: nothing_held(server.client))


def test_a_healthy_call_is_not_run_twice_over_a_half_open_connection(
    gaia: Gaia, proxy: Proxy, server: Server, worker: cluster.Worker, marks: tuple[str, str], tmp_path: Path
) -> None:
    pending = gaia.submit(Hold(*marks))
    until(lambda: started(marks) == 1)
    with cluster.probe_worker(server.url, log=tmp_path / "second.log"):
        pause(2.5)
        proxy.go_silent()
        pause(10)
        Path(marks[1]).touch()
        assert pending.get(timeout=30).text == "released"
    assert started(marks) == 1


def test_a_call_that_runs_through_a_reset_is_committed_over_the_next_connection(
    gaia: Gaia, proxy: Proxy, server: Server, worker: cluster.Worker, marks: tuple[str, str]
) -> None:
    pending = gaia.submit(Hold(*marks))
    until(lambda: started(marks) == 1)
    for _ in range(3):
        proxy.cut()
        pause(0.5)
    Path(marks[1]).touch()
    assert pending.get(timeout=30).text == "released"
    until(lambda: nothing_held(server.client))
    assert started(marks) == 1


def test_reconnecting_leaks_no_thread_and_no_file(
    gaia: Gaia, proxy: Proxy, worker: cluster.Worker, server: Server
) -> None:
    process = psutil.Process(worker.process.pid)

    def settle() -> tuple[int, int]:
        assert [gaia.submit(Echo("x")).get(timeout=60) for _ in range(10)]
        return process.num_threads(), process.num_fds()

    for _ in range(2):
        proxy.cut()
        settle()
    threads, files = settle()
    for _ in range(10):
        proxy.cut()
        settle()
    more_threads, more_files = settle()
    assert more_threads <= threads + 2
    assert more_files <= files + 4
    until(lambda: len(server.client.client_list()) < 30)


# --- a quiet worker


def scripts_run(server: Server, seconds: float = 2) -> int:
    server.client.config_resetstat()
    pause(seconds)
    return int(server.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


def test_a_worker_with_full_slots_and_a_backlog_is_quiet(
    gaia: Gaia, server: Server, worker: cluster.Worker, marks: tuple[str, str]
) -> None:
    pendings = [gaia.submit(Hold(*marks)) for _ in range(16)]
    until(lambda: started(marks) == 4)
    assert scripts_run(server) < 40
    Path(marks[1]).touch()
    assert all(each.get(timeout=30) for each in pendings)


def test_a_worker_of_a_paused_queue_is_quiet(gaia: Gaia, server: Server, worker: cluster.Worker) -> None:
    server.client.sadd(keys.PAUSED, "probe")
    pendings = [gaia.submit(Echo("x")) for _ in range(3)]
    assert scripts_run(server) < 40
    server.client.srem(keys.PAUSED, "probe")
    assert all(each.get(timeout=30) for each in pendings)


def test_a_worker_on_a_full_server_is_quiet_and_goes_on_when_there_is_room(
    gaia: Gaia, server: Server, worker: cluster.Worker, marks: tuple[str, str]
) -> None:
    pendings = [gaia.submit(Hold(*marks)) for _ in range(4)]
    until(lambda: started(marks) == 4)
    server.client.config_set("min-replicas-to-write", 1)
    Path(marks[1]).touch()
    assert scripts_run(server) < 40
    server.client.config_set("min-replicas-to-write", 0)
    assert all(each.get(timeout=30) for each in pendings)
    assert worker.process.poll() is None


def is_bound(server: Server) -> bool:
    return bool(server.client.exists("_kombu.binding.probe"))


def test_a_worker_that_starts_on_a_full_server_ends_what_is_queued(gaia: Gaia, server: Server, tmp_path: Path) -> None:
    pendings = [gaia.submit(Echo("queued")) for _ in range(5)]
    server.client.config_set("maxmemory", 1)
    with cluster.probe_worker(server.url, log=tmp_path / "worker.log") as worker:
        assert [each.get(timeout=20).text for each in pendings] == ["queued"] * 5
        assert not is_bound(server)
        until(lambda: "are refused" in worker.text(), what="the warning")
        server.client.config_set("maxmemory", 0)
        until(lambda: is_bound(server), what="a binding that is written later")
        assert "Traceback" not in worker.text()


def test_a_worker_that_comes_back_to_a_full_server_ends_what_it_runs(
    gaia: Gaia, proxy: Proxy, server: Server, worker: cluster.Worker, marks: tuple[str, str]
) -> None:
    pending = gaia.submit(Hold(*marks))
    until(lambda: started(marks) == 1)
    server.client.config_set("maxmemory", 1)
    proxy.cut()
    until(lambda: worker.text().count("Connected to") == 2, what="a second connection")
    Path(marks[1]).touch()
    assert pending.get(timeout=20).text == "released"
    until(lambda: nothing_held(server.client))
    server.client.config_set("maxmemory", 0)
    assert gaia.submit(Echo("next")).get(timeout=20).text == "next"
    assert worker.process.poll() is None


def test_a_worker_that_comes_back_to_a_busy_server_waits_for_it(
    gaia: Gaia, proxy: Proxy, server: Server, worker: cluster.Worker
) -> None:
    gaia.submit(Echo("before")).get(timeout=20)
    server.client.config_set("busy-reply-threshold", 50)
    with redis.Redis.from_url(server.url) as other:
        busy = threading.Thread(target=endless, args=(other,))
        busy.start()
        until(lambda: is_busy(server))
        proxy.cut()
        until(lambda: worker.text().count("Trying again") >= 3 or worker.process.poll() is not None, what="three tries")
        server.client.script_kill()
        busy.join(10)
    assert gaia.submit(Echo("next")).get(timeout=20).text == "next"
    assert worker.text().count("Trying again in 2.00 seconds") == worker.text().count("Trying again")
    assert worker.process.poll() is None


def test_a_worker_whose_queue_is_no_list_waits_until_it_is_one(
    gaia: Gaia, server: Server, worker: cluster.Worker, proxy: Proxy
) -> None:
    server.client.set("probe", "no list")
    proxy.cut()
    until(lambda: "WRONGTYPE" in worker.text() or worker.process.poll() is not None, what="a refusal")
    server.client.delete("probe")
    assert gaia.submit(Echo("next")).get(timeout=20).text == "next"
    assert worker.process.poll() is None


def test_a_worker_that_may_not_listen_any_more_ends(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    set_user = partial(server.client.execute_command, "ACL", "SETUSER", "deaf")
    set_user("on", ">secret", "~*", "&*", "+@all")
    with cluster.probe_worker(proxy.url.replace("//", "//deaf:secret@"), log=tmp_path / "worker.log") as worker:
        set_user("-subscribe", "-psubscribe")
        proxy.cut()
        assert worker.process.wait(30) != 0
        assert "has no permissions" in worker.text()


def endless(client: "redis.Redis") -> None:
    with suppress(redis.ResponseError):
        client.eval("while true do end", 0)


def is_busy(server: Server) -> bool:
    try:
        return not server.client.ping()
    except redis.ResponseError:
        return True


# --- messages that harm


def odd_message(**headers: object) -> bytes:
    return json.dumps(
        {
            "body": '[[], {"text": "x"}, {}]',
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": "probe.echo", "id": "odd", **headers},
            "properties": {
                "correlation_id": "odd",
                "delivery_info": {"exchange": "", "routing_key": "probe"},
                "body_encoding": "utf-8",
                "delivery_tag": "odd",
            },
        }
    ).encode()


@pytest.mark.parametrize(
    "message",
    [
        odd_message(id=7),
        odd_message(shadow={"a": 1}),
        odd_message(z={"__type__": "uuid", "__value__": 7}),
        odd_message().replace(b"{}]", b'{\\"chord\\": {\\"task\\": 7}, \\"callbacks\\": [7], \\"errbacks\\": 3}]'),
    ],
    ids=["an id that is no text", "a shadow that is no text", "kombu's types misused", "links that are none"],
)
def test_a_message_that_breaks_celery_is_not_held_for_ever(
    gaia: Gaia, server: Server, worker: cluster.Worker, message: bytes
) -> None:
    server.client.lpush("probe", message)
    assert gaia.submit(Echo("next")).get(timeout=20).text == "next"
    until(lambda: nothing_held(server.client), what="the end of the odd message")
    assert server.client.llen("probe") == 0
    assert worker.process.poll() is None


# --- beside stock tools


def test_inspect_answers_stock_and_own_apps_named_or_not(server: Server, worker: cluster.Worker) -> None:
    code = (
        "import sys; {imports}; app = {app}\n"
        "names = list(app.control.inspect(timeout=2).ping())\n"
        "one = app.control.inspect(destination=names, timeout=5)\n"
        "assert len(names) == 1 and one.ping() and one.active() is not None and one.registered() and one.reserved()\n"
    )
    for imports, app in (
        ("from celery import Celery", f"Celery(broker={server.url!r})"),
        ("import tasks.app", "tasks.app.app"),
    ):
        found = subprocess.run(
            [sys.executable, "-c", code.format(imports=imports, app=app)],
            check=False,
            cwd=cluster.ROOT,
            env={**cluster.clean_environ(), "GAIA_REDIS_URL": server.url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert found.returncode == 0, f"{imports}: {found.stderr}"
    until(lambda: not server.client.hlen("unacked"))


# --- TLS


@contextmanager
def tls_before(server: Server, directory: Path) -> Iterator[str]:
    """Terminate TLS before a server; give the URL. The bundled Valkey is built without TLS."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    paths = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*request.split(), *paths], check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Proxy(server.port, tls=context) as proxy:
        yield f"rediss://127.0.0.1:{proxy.port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="TLS IS NOT TESTED: no openssl for a certificate")
def test_everything_works_over_tls(server: Server, tmp_path: Path, marks: tuple[str, str]) -> None:
    with tls_before(server, tmp_path) as url, cluster.probe_worker(url, log=tmp_path / "worker.log") as worker:
        with Gaia(url) as gaia:
            held = gaia.submit(Hold(*marks))
            pendings = [gaia.submit(Echo("x" * 30_000)) for _ in range(60)]
            assert all(each.get(timeout=60) for each in pendings)
            Path(marks[1]).touch()
            assert held.get(timeout=20).text == "released"
        until(lambda: nothing_held(server.client))
        assert worker.process.poll() is None

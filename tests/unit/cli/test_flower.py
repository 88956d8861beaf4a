"""Flower in a process of its own, over a real server."""

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.cli.flower import address, scrubbed
from tasks.cli.server import free_port
from tests.support import cluster
from tests.support.waiting import until

Start = Callable[..., "Page"]

UNAUTHORIZED = "<html><title>401: Unauthorized</title><body>401: Unauthorized</body></html>"


class Page:
    """A running `gaia flower`."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, port: int) -> None:
        self.process, self.log, self.port = process, log, port

    def get(self, path: str, method: str = "GET", at: str = "127.0.0.1", **headers: str) -> tuple[int, str]:
        connection = HTTPConnection(at, self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `gaia flower` with settings, and wait until it serves."""
    pages: list[Page] = []

    def begin(url: str, **settings: str) -> Page:
        port = free_port("127.0.0.1")
        environ = {
            **cluster.clean_environ(),
            "GAIA_REDIS_URL": url,
            "GAIA_FLOWER__PORT": str(port),
            "FLOWER_UNAUTHENTICATED_API": "true",
            **settings,
        }
        log = tmp_path / f"flower-{len(pages)}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.cli.main", "flower"], env=environ, stdout=out, stderr=out
            )
        pages.append(Page(process, log, port))
        until(lambda: process.poll() is not None or "Flower shows" in log.read_text(), 60)
        return pages[-1]

    yield begin
    for each in pages:
        cluster.stop(each.process)


def test_it_serves_read_only_to_this_machine_and_stops_on_sigterm(start: Start, redis_url: str) -> None:
    page = start(redis_url)
    assert page.get("/")[0] == 200
    assert page.get("/tasks")[0] == 200
    assert page.get("/api/worker/shutdown/api@host", "POST")[0] in {401, 403}
    assert page.get("/api/tasks")[0] == 401
    assert cluster.stop(page.process) == 0
    assert "Traceback" not in page.log.read_text()


def test_a_foreign_host_name_is_refused(start: Start, redis_url: str) -> None:
    page = start(redis_url)
    assert page.get("/", Host="rebound.example")[0] == 403
    assert page.get("/metrics", Host=f"rebound.example:{page.port}")[0] == 403
    assert page.get("/", Host=f"localhost:{page.port}")[0] == 200


def test_the_loopback_address_that_it_listens_on_is_no_foreign_name(start: Start, redis_url: str) -> None:
    page = start(redis_url, GAIA_FLOWER__HOST="127.0.0.2")
    assert page.get("/healthcheck", at="127.0.0.2")[0] == 200
    assert page.get("/healthcheck", at="127.0.0.2", Host="127.0.0.3")[0] == 403


def test_the_password_of_the_broker_is_on_no_page_and_in_no_log(start: Start, redis_url: str) -> None:
    page = start(redis_url)
    password = redis_url.partition("@")[0].rpartition(":")[2]
    until(lambda: "Connected" in page.log.read_text())
    shown = [page.get(path)[1] for path in ("/", "/broker", "/tasks", "/workers?json=1", "/metrics", "/nothing")]
    assert "127.0.0.1" in shown[1]
    assert not any(password in each for each in [*shown, page.log.read_text()])


def test_with_a_password_nobody_comes_in_without(start: Start, redis_url: str) -> None:
    page = start(redis_url, GAIA_FLOWER__BASIC_AUTH="me:pass", GAIA_FLOWER__HOST="0.0.0.0")  # noqa: S104 - the case
    right, wrong = (base64.b64encode(each).decode() for each in (b"me:pass", b"me:past"))
    assert page.get("/")[0] == 401
    assert page.get("/", Authorization=f"Basic {wrong}")[0] == 401
    assert page.get("/", Authorization=f"Basic {right}", Host="gaia.example")[0] == 200


def test_with_a_password_every_page_needs_it_but_the_healthcheck_which_says_ok(start: Start, redis_url: str) -> None:
    page = start(redis_url, GAIA_FLOWER__BASIC_AUTH="me:pass")
    right = base64.b64encode(b"me:pass").decode()
    wrong = [base64.b64encode(each).decode() for each in ("me:päss".encode(), b"\xff", b"")]
    for path in ("/metrics", "/metrics?x", "/api/workers", "/login", "/static/css/flower.css", "/nothing"):
        assert page.get(path) == (401, UNAUTHORIZED)
    for each in [f"Basic {given}" for given in wrong] + [
        "Basic",
        "Basic é".encode().decode("latin-1"),
        f"Bearer {right}",
    ]:
        assert page.get("/metrics", Authorization=each)[0] == 401
    status, text = page.get("/metrics", Authorization=f"Basic {right}")
    assert (status, "flower_" in text) == (200, True)
    assert page.get("/healthcheck") == (200, "OK")


def test_it_shows_its_page_and_stops_without_a_broker(start: Start) -> None:
    page = start(f"redis://:secret@127.0.0.1:{free_port('127.0.0.1')}/0")
    assert page.get("/tasks")[0] == 200
    assert cluster.stop(page.process) == 0
    assert "secret" not in page.log.read_text()


def test_a_taken_port_is_named_with_the_mend(start: Start, redis_url: str) -> None:
    page = start(redis_url)
    second = start(redis_url, GAIA_FLOWER__PORT=str(page.port))
    assert second.process.wait() == 1
    last = second.log.read_text().splitlines()[-1]
    assert last.startswith(f"gaia: Flower cannot have port {page.port} on 127.0.0.1 (Address already in use)")
    assert "GAIA_FLOWER__PORT" in last


def test_texts_of_a_task_are_scrubbed() -> None:
    task: Any = SimpleNamespace(
        args="()", kwargs="{'url': 'http://me:pw@host/'}", result=None, exception="token=abcdef"
    )
    shown = scrubbed(task)
    assert "pw@" not in shown.kwargs
    assert "abcdef" not in shown.exception
    assert shown.result is None


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:1/"), ("::1", "http://[::1]:1/")])
def test_an_address_is_a_url(host: str, url: str) -> None:
    assert address(host, 1) == url

"""Stock tools beside the cluster: Celery's own command, and Flower's pages in a real browser."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from config.settings import Browser
from gaia import Gaia, network
from gaia.contracts.browser import Capture
from gaia.errors import EgressDenied, TimedOut
from tasks.browser.service import BrowserService
from tasks.cli.server import free_port, is_free
from tasks.runtime.identity import Identity
from tasks.scope import Scope
from tests.support import cluster
from tests.support.waiting import until

BIN = Path(sys.executable).parent
SCREENSHOTS = cluster.ROOT / "tests" / "artifacts"


@pytest.fixture(scope="module")
def worker(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Worker]:
    log = tmp_path_factory.mktemp("tools") / "worker.log"
    with cluster.worker(redis_url, "network", log=log) as found:
        yield found


def celery(redis_url: str, *arguments: str) -> str:
    done = subprocess.run(
        [BIN / "celery", *arguments],
        cwd=cluster.ROOT,
        env={**cluster.clean_environ(), "GAIA_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_inspect_registered_names_every_operation(redis_url: str, worker: cluster.Worker) -> None:
    said = celery(redis_url, "-A", "tasks.app", "inspect", "registered")
    for name in ("api.request", "files.write", "files.read", "process.run", "network.resolve", "browser.capture"):
        assert name in said


def test_inspect_works_over_stock_transport_too(redis_url: str, worker: cluster.Worker) -> None:
    assert "pong" in celery(redis_url, "--broker", redis_url, "inspect", "ping")


class Loopback:
    """Dials one port of loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def dial(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        if port != self.port:
            raise EgressDenied(host, host, "it is not Flower")
        return socket.create_connection(("127.0.0.1", port), timeout_s)


@contextmanager
def flower(redis_url: str, log: Path) -> Iterator[int]:
    port = free_port("127.0.0.1")
    environ = {**cluster.clean_environ(), "GAIA_REDIS_URL": redis_url, "GAIA_FLOWER__PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "gaia", "flower"], cwd=cluster.ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: not is_free("127.0.0.1", port), 30, what="Flower's port")
        yield port
    finally:
        assert cluster.stop(process) == 0


def test_flower_pages_show_the_worker_and_a_task(redis_url: str, worker: cluster.Worker, tmp_path: Path) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    with (
        flower(redis_url, tmp_path / "flower.log") as port,
        closing(BrowserService(settings=Browser(), dialler=Loopback(port), holder=Identity("tools@test"))) as browser,
        Gaia(redis_url) as gaia,
    ):

        def shown(page: str, word: str) -> bytes | None:
            call = Capture(
                url=f"http://127.0.0.1:{port}/{page}", formats=("png", "html"), timeout_s=5, wait_for="tbody td a"
            )
            # The rows come after the page: without any, its table stays empty and the wait ends.
            with suppress(TimedOut):
                found = browser.capture(call, Scope.lasting(60))
                return found.png if found.html and word in found.html else None
            return None

        workers = until(lambda: shown("workers", "network-"), 60, what="the worker on Flower's page")
        gaia.submit(network.Resolve("localhost")).get(timeout=30)
        tasks = until(lambda: shown("tasks", "network.resolve"), 60, what="the task on Flower's page")
    for name, png in {"flower-workers": workers, "flower-tasks": tasks}.items():
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        part = SCREENSHOTS / f"{name}.{os.getpid()}.part"
        part.write_bytes(png)
        part.replace(SCREENSHOTS / f"{name}.png")

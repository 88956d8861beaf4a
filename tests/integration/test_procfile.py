"""The Procfile under a process manager: every line runs, and all of it goes when the manager is told to."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from celery import Celery

from gaia import wire
from gaia.store import keys
from tasks.cli.server import HOST, free_port
from tests.support.cluster import ROOT, clean_environ, stop
from tests.support.waiting import until

START_BOUND_S = 90.0


class Honcho:
    """A running `honcho start`, and every process that it started."""

    def __init__(self, redis_url: str, log: Path) -> None:
        self.log = log
        self.flower_port, self.monitor_port = free_port(HOST), free_port(HOST)
        scripts = Path(sys.executable).parent
        environ = clean_environ() | {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "GAIA_REDIS_URL": redis_url,
            "GAIA_FLOWER__PORT": str(self.flower_port),
            "GAIA_MONITOR__PORT": str(self.monitor_port),
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [scripts / "honcho", "start"], cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
            )

    def running(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(errors="replace")
        return True

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def honcho(redis_url: str, tmp_path: Path) -> Iterator[Honcho]:
    found = Honcho(redis_url, tmp_path / "honcho.log")
    yield found
    started = found.descendants() if found.process.poll() is None else []
    stop(found.process)
    for each in started:
        with suppress(psutil.NoSuchProcess):
            each.kill()


@pytest.fixture
def control(redis_url: str) -> Iterator[Celery]:
    """A Celery app that asks workers."""
    app = Celery("asker", broker=redis_url, set_as_current=False)
    yield app
    app.close()


def served(control: Celery) -> set[str]:
    """Give the shared queues from which the workers that answer consume; each has one of its own besides."""
    answers = control.control.inspect(timeout=1.0).active_queues() or {}
    names = {queue["name"] for queues in answers.values() for queue in queues}
    return {each for each in names if not each.startswith(keys.own_queue(""))}


def test_every_line_runs_and_nothing_outlives_the_manager(honcho: Honcho, control: Celery) -> None:
    until(lambda: honcho.running() and served(control) == set(wire.QUEUES), START_BOUND_S, what="five queues served")
    until(lambda: answers(honcho.flower_port), START_BOUND_S, what="Flower's page")
    until(lambda: answers(honcho.monitor_port, "readiness"), START_BOUND_S, what="the monitor's page")
    started = honcho.descendants()
    assert len(started) >= len(wire.QUEUES) + 2

    honcho.process.send_signal(signal.SIGTERM)
    honcho.process.wait(30)
    _, left = psutil.wait_procs(started, timeout=10)
    assert not left
    assert "SIGKILL" not in honcho.log.read_text(errors="replace")
    assert not answers(honcho.flower_port)
    assert not answers(honcho.monitor_port, "liveness")


def answers(port: int, page: str = "healthcheck") -> bool:
    try:
        with urlopen(f"http://{HOST}:{port}/{page}", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False

"""Flower beside a real worker, in a real browser: what it shows of calls, and what it lets nobody do."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from celery import Celery

from gaia import Gaia
from gaia.errors import GaiaError
from tasks.cli.server import free_port
from tests.support import cluster
from tests.support.cluster import get
from tests.support.opening import opened
from tests.support.probe import Echo, Fail
from tests.support.waiting import until

SECRET = "marked-secret-7f3a9c"


@pytest.fixture(scope="module")
def page(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Flower beside a worker; it hears every event from the beginning."""
    folder, port = tmp_path_factory.mktemp("flower"), free_port("127.0.0.1")
    environ = {**cluster.clean_environ(), "GAIA_REDIS_URL": redis_url, "GAIA_FLOWER__PORT": str(port)}
    with (folder / "log").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.cli.main", "flower"], env=environ, stdout=out, stderr=out
        )
    try:
        until(lambda: "Connected" in (folder / "log").read_text(), 60, what="Flower's connection")
        with cluster.probe_worker(redis_url, log=folder / "worker", name="p"):
            yield f"http://127.0.0.1:{port}"
        assert SECRET not in (folder / "log").read_text()
        assert SECRET not in (folder / "worker").read_text()
    finally:
        cluster.stop(process)


def test_a_browser_shows_tasks_and_no_secret_whoever_sent_them(page: str, redis_url: str, tmp_path: Path) -> None:
    with Gaia(redis_url) as g, Celery("foreign", broker=redis_url, set_as_current=False) as foreign:
        calls = [g.submit(Echo("seen-by-all", token=SECRET)), g.submit(Fail(token=SECRET))]
        calls[0].get(timeout=30)
        with pytest.raises(GaiaError):
            calls[1].get(timeout=30)
        sent = foreign.send_task("probe.echo", kwargs={"text": "foreign", "token": SECRET}, queue="probe")
    ids = [*[each.id for each in calls], sent.id]
    for each in ids:
        until(lambda each=each: "SUCCESS" in (text := get(f"{page}/task/{each}")[1]) or "FAILURE" in text)  # type: ignore[misc]
        assert SECRET not in get(f"{page}/task/{each}")[1]
    assert "seen-by-all" in get(f"{page}/task/{ids[0]}")[1]
    listed = opened(f"{page}/tasks", tmp_path).dom
    assert all(each in listed for each in ids)
    assert SECRET not in listed


def test_a_browser_shows_a_worker_and_no_button_that_works(page: str, tmp_path: Path) -> None:
    workers = until(lambda: re.findall(r"p@[\w.-]+", get(f"{page}/workers?json=1")[1]))
    dom = until(lambda: "probe" in (text := opened(f"{page}/worker/{quote(workers[0])}", tmp_path).dom) and text, 60)
    assert SECRET not in dom
    for action in ("shutdown", "pool/grow", "pool/restart", "queue/cancel-consumer"):
        address = f"{page}/api/worker/{action}/{workers[0]}"
        with pytest.raises(HTTPError) as refused, urlopen(Request(address, method="POST"), timeout=30):  # noqa: S310 - ours
            pass
        assert refused.value.code in {401, 403}
        refused.value.close()

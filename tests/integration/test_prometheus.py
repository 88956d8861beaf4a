"""A real Prometheus with our configuration: it finds the workers through the monitor, and evaluates every rule."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gaia import Gaia, network
from tasks.cli.server import free_port
from tests.support import cluster, debian
from tests.support.cluster import ROOT, get
from tests.support.waiting import until


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str) -> Any:
        return json.loads(get(f"{self.url}/api/v1/{path}")[1])["data"]

    def values(self, expr: str) -> list[float]:
        return [float(each["value"][1]) for each in self.ask(f"query?query={quote(expr)}")["result"]]


@pytest.fixture
def server(tmp_path: Path, fresh_url: str) -> Iterator[Prometheus]:
    binary = debian.program("prometheus")
    if binary is None:
        pytest.skip("NOT CHECKED: this machine has no Prometheus: `python -m tests.support.debian`")
    pages, port = free_port("127.0.0.1"), free_port("127.0.0.1")
    folder = ROOT / "config" / "prometheus"
    text = (folder / "prometheus.yml").read_text().replace("127.0.0.1:9808", f"127.0.0.1:{pages}")
    text = text.replace("rules/*.yml", f"{folder}/rules/*.yml").replace("15s", "1s").replace("10s", "1s")
    (tmp_path / "prometheus.yml").write_text(text)
    environ = {**cluster.clean_environ(), "GAIA_REDIS_URL": fresh_url, "GAIA_MONITOR__PORT": str(pages)}
    with (tmp_path / "log").open("wb") as out:
        monitor = [sys.executable, "-P", "-m", "tasks.cli.main", "monitor"]
        served = [
            *(str(binary), f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"),
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        processes = [
            subprocess.Popen(argv, cwd=tmp_path, env=environ, stdout=out, stderr=out) for argv in (monitor, served)
        ]
    try:
        until(lambda: ready(f"http://127.0.0.1:{port}/-/ready"), 60, what="Prometheus")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        for each in processes:
            cluster.stop(each)


def ready(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def test_it_scrapes_the_monitor_and_every_worker_and_evaluates_every_rule(
    server: Prometheus, fresh_url: str, tmp_path: Path
) -> None:
    with (
        cluster.worker(fresh_url, "network", log=tmp_path / "network"),
        cluster.probe_worker(fresh_url, log=tmp_path / "probe"),
        Gaia(fresh_url) as g,
    ):
        until(lambda: server.values('up{job="gaia-monitor"}') == [1], 60)
        until(lambda: server.values('sum(up{job="gaia-workers"})') == [2], 60)
        for _ in range(5):
            g.submit(network.Resolve("localhost")).get(timeout=30)
        until(lambda: server.values('sum(gaia_operations_total{queues="network",outcome="ok"})') == [5], 30)
        until(lambda: server.values('celery_task_succeeded_total{name="network.resolve"}') == [5], 30)
        assert len(all_rules(server)) >= 60
        until(lambda: all(each["health"] == "ok" for each in all_rules(server)), 60, what="every rule's evaluation")
        firing = [each["labels"]["alertname"] for each in server.ask("alerts")["alerts"] if each["state"] == "firing"]
        assert firing == []


def all_rules(server: Prometheus) -> list[Any]:
    return [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]

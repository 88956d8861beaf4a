"""A real Prometheus with our configuration: it finds the workers through the monitor, and evaluates every rule."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gaia import Gaia, network
from tests.support import cluster, prometheus
from tests.support.prometheus import Prometheus
from tests.support.waiting import until


@pytest.fixture
def server(tmp_path: Path, fresh_url: str) -> Iterator[Prometheus]:
    with prometheus.serve(tmp_path, fresh_url) as found:
        yield found


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
        assert len(server.rules()) >= 60
        until(lambda: all(each["health"] == "ok" for each in server.rules()), 60, what="every rule's evaluation")
        assert server.firing() == []

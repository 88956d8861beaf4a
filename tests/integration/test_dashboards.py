"""Every panel of every dashboard shows something: a real cluster at work, a real Prometheus with our rules."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tasks.monitor import dashboard
from tests.support import dashboards, prometheus, traffic
from tests.support.dashboards import Query
from tests.support.opening import Opened, opened
from tests.support.prometheus import Prometheus
from tests.support.waiting import until

INTERVALS = {"rate_interval": "10s", "shown": "1m"}
"""Grafana gives four times the pause between two scrapes, at least; that is a second here."""

SEEN = (
    "sum(rate(gaia_errors_total[10s]))",
    "sum(gaia_retries_total)",
    'sum(gaia_api_events_total{event="retried"})',
    "sum(gaia_dead_letters_total)",
    "sum(gaia_dead_letters_kept)",
    "sum(gaia_paused)",
    'sum(gaia_limit_decisions_total{outcome="refused"})',
    'sum(gaia_limit_paused_seconds_total{limit="bytes"})',
    "sum(gaia_circuits)",
    'sum(gaia_browser_events_total{event="launches"})',
    "sum(gaia_process_ended_total)",
)
"""What the panels show as 0 as long as all is well: here it is not."""


@pytest.fixture(scope="module")
def server(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("traffic")
    with (
        prometheus.serve(tmp_path_factory.mktemp("prometheus"), redis_url) as found,
        traffic.under_way(redis_url, folder),
    ):
        yield found


@pytest.fixture
def page(server: Prometheus, tmp_path: Path) -> Callable[..., Opened]:
    """Open the page of the monitor."""
    return lambda **fields: opened(f"{server.monitor}/dashboard#{urlencode({'range': '5m', **fields})}", tmp_path)


def shows(server: Prometheus, query: Query) -> bool:
    """Say whether a query gives a series; one that is no number is none."""
    return not all(map(math.isnan, server.values(dashboards.filled(query.expr, **INTERVALS))))


def test_every_query_of_every_panel_gives_data(server: Prometheus) -> None:
    missing = list(dashboards.queries())

    def none_is_missing() -> bool:
        missing[:] = [each for each in missing if not shows(server, each)]
        return not missing

    try:
        until(none_is_missing, 60)
    except AssertionError:
        pytest.fail("no data: " + "; ".join(f"{each}: {each.expr}" for each in missing))


@pytest.mark.parametrize("expr", SEEN)
def test_what_goes_wrong_shows(server: Prometheus, expr: str) -> None:
    until(lambda: any(value > 0 for value in server.values(expr)), 30, what=expr)


# --- the page without Grafana


@pytest.mark.parametrize("board", ["gaia-overview", "gaia-browser"])
def test_a_browser_draws_every_panel_with_data_and_complains_of_nothing(
    server: Prometheus, page: Callable[..., Opened], board: str
) -> None:
    wanted = dashboards.panels(dashboards.FILES[board.removeprefix("gaia-")])
    found = until(lambda: (it := page(board=board)) and dashboards.states(it.dom) == {"drawn": len(wanted)} and it, 60)
    assert found.console == ()
    for each in wanted:
        assert f"<h3>{each['title']}<" in found.dom
    lines = sum(each["type"] == "timeseries" for each in wanted)
    assert found.dom.count("<polyline") + found.dom.count("<circle") >= lines
    assert "NaN" not in found.dom.partition("<script")[0]
    assert 'data-state="shown"' in found.dom


def test_one_worker_and_one_operation_can_be_chosen(server: Prometheus, page: Callable[..., Opened]) -> None:
    (worker,) = until(
        lambda: [
            each["metric"]["worker"]
            for each in server.ask("query?query=gaia_worker_info")["result"]
            if "api" in each["metric"]["queues"]
        ]
    )
    found = page(board="gaia-cost", worker=worker, operation="files.read")
    assert dashboards.states(found.dom)["drawn"] == len(dashboards.panels(dashboards.FILES["cost"]))
    assert '<option value="network.resolve">' in found.dom
    assert f'<option value="{worker}">' in found.dom
    names = set(re.findall(r'<span class="name">([^<]*)</span>', found.dom))
    assert {each for each in names if "." in each} == {"files.read"}
    assert dashboards.states(page(board="gaia-workers", worker=".*").dom)["empty"] > 0


def test_as_a_file_it_asks_prometheus_itself(server: Prometheus, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(dashboard.file(server.url))
    found = opened(f"{path.as_uri()}#range=5m", tmp_path)
    assert dashboards.states(found.dom) == {"drawn": len(dashboards.panels(dashboards.FILES["overview"]))}
    assert found.console == ()

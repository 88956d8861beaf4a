"""Every panel of every dashboard shows something: a real cluster at work, a real Prometheus with our rules."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest

from tasks.monitor import dashboard
from tests.support import dashboards, prometheus, traffic
from tests.support.dashboards import Query
from tests.support.opening import Opened, opened
from tests.support.prometheus import Prometheus
from tests.support.viewing import viewing
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


class Watched(NamedTuple):
    """A server, and what it had no data for, however long it was waited for."""

    server: Prometheus
    missing: list[Query]
    unseen: list[str]


@pytest.fixture(scope="module")
def watched(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("traffic")
    with (
        prometheus.serve(tmp_path_factory.mktemp("prometheus"), redis_url) as server,
        traffic.under_way(redis_url, folder) as pace,
    ):
        found = Watched(server, list(dashboards.queries()), list(SEEN))
        with suppress(AssertionError):  # the tests tell what is missing
            until(lambda: nothing_is_missing(found), 60)
        pace.slow()
        yield found


def nothing_is_missing(watched: Watched) -> bool:
    """Strike out what has been there."""
    server, missing, unseen = watched
    missing[:] = [each for each in missing if not shows(server, each)]
    unseen[:] = [each for each in unseen if not any(value > 0 for value in server.values(each))]
    return not missing and not unseen


@pytest.fixture
def server(watched: Watched) -> Prometheus:
    return watched.server


@pytest.fixture
def page(server: Prometheus, tmp_path: Path) -> Callable[..., Opened]:
    """Open the page of the monitor."""
    return lambda **fields: opened(f"{server.monitor}/dashboard#{urlencode({'range': '5m', **fields})}", tmp_path)


def drawn(read: Callable[[], Opened], panels: int, holds: str = "") -> Opened:
    """Open a page until all of so many panels are drawn, and it holds a text."""

    def whole() -> Opened | None:
        found = read()
        return found if dashboards.states(found.dom)["drawn"] == panels and holds in found.dom else None

    return until(whole, 60)


def shows(server: Prometheus, query: Query) -> bool:
    """Say whether a query gives a series; one that is no number is none."""
    return not all(map(math.isnan, server.values(dashboards.filled(query.expr, **INTERVALS))))


def test_every_query_of_every_panel_gives_data(watched: Watched) -> None:
    assert [f"{each}: {each.expr}" for each in watched.missing] == []


@pytest.mark.parametrize("expr", SEEN)
def test_what_goes_wrong_shows(watched: Watched, expr: str) -> None:
    assert expr not in watched.unseen


# --- the page without Grafana


def test_a_browser_draws_every_panel_with_data_and_complains_of_nothing(page: Callable[..., Opened]) -> None:
    wanted = dashboards.panels(dashboards.FILES["overview"])
    found = drawn(lambda: page(board="gaia-overview"), len(wanted))
    assert set(dashboards.states(found.dom)) == {"drawn"}
    assert found.console == ()
    for each in wanted:
        assert f"<h3>{each['title']}<" in found.dom
    lines = sum(each["type"] == "timeseries" for each in wanted)
    assert found.dom.count("<polyline") + found.dom.count("<circle") >= lines
    assert "NaN" not in found.dom.partition("<script")[0]
    assert 'data-state="shown"' in found.dom


def test_one_page_draws_every_dashboard_whole(server: Prometheus, fresh_url: str, tmp_path: Path) -> None:
    with viewing(f"{server.monitor}/dashboard", fresh_url, tmp_path) as viewer:
        for board in dashboards.FILES.values():
            viewer.go(board=board["uid"], range="5m", refresh="5s")
            every = {"drawn": len(dashboards.panels(board))}
            until(lambda every=every: viewer.states() == every, 60, what=board["title"])
            assert viewer.value("document.title") == board["title"]


def test_one_worker_and_one_operation_can_be_chosen(server: Prometheus, page: Callable[..., Opened]) -> None:
    (worker,) = until(
        lambda: [
            each["metric"]["worker"]
            for each in server.ask("query?query=gaia_worker_info")["result"]
            if "api" in each["metric"]["queues"]
        ]
    )
    panels = len(dashboards.panels(dashboards.FILES["cost"]))
    another = '<option value="network.resolve">'
    found = drawn(lambda: page(board="gaia-cost", worker=worker, operation="files.read"), panels, another)
    assert f'<option value="{worker}">' in found.dom
    names = set(re.findall(r'<span class="name">([^<]*)</span>', found.dom))
    assert {each for each in names if "." in each} == {"files.read"}
    assert dashboards.states(page(board="gaia-workers", worker=".*").dom)["empty"] > 0


def test_as_a_file_it_asks_prometheus_itself(server: Prometheus, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(dashboard.file(server.url))
    found = drawn(
        lambda: opened(f"{path.as_uri()}#range=5m", tmp_path), len(dashboards.panels(dashboards.FILES["overview"]))
    )
    assert set(dashboards.states(found.dom)) == {"drawn"}
    assert found.console == ()

"""Every panel of every dashboard shows something: a real cluster at work, a real Prometheus with our rules."""

import math
from collections.abc import Iterator

import pytest

from tests.support import dashboards, prometheus, traffic
from tests.support.dashboards import Query
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
        prometheus.running(tmp_path_factory.mktemp("prometheus"), redis_url) as found,
        traffic.under_way(redis_url, folder),
    ):
        yield found


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

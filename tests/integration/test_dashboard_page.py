"""The page of dashboards in a real browser when something is wrong: it says so in words, and lets nothing in."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import promql_parser as promql
import pytest

from config.settings import read
from gaia import Gaia, browser
from tasks.cli.server import free_port
from tasks.monitor import dashboard
from tasks.monitor.monitor import Monitor
from tests.support import cluster
from tests.support.cluster import get
from tests.support.dashboards import states
from tests.support.opening import opened
from tests.support.waiting import until
from tests.support.web import Asked, Site, reply

TOKEN = "0123456789abcdef-token"
EVIL = '<img src=x onerror="console.error(1)">\u2028"\'</script><b>'


@pytest.fixture
def monitor(fresh_url: str) -> Iterator[Callable[..., str]]:
    """Start a monitor that asks an address; give the page's."""
    running = []

    def start(address: str, **more: str) -> str:
        own = {"GAIA_REDIS_URL": fresh_url, "GAIA_MONITOR__PORT": "0", "GAIA_MONITOR__PROMETHEUS": address}
        found = Monitor(read(own | more))
        running.append(found)
        found.start()
        return f"http://127.0.0.1:{found.port}/dashboard"

    yield start
    for each in running:
        each.close()


def answering(site: Site, labels: dict[str, str]) -> None:
    """Have a site answer every query with one series."""

    def ranged(asked: Asked, _: object) -> bytes:
        fields = dict(each.split("=") for each in asked.target.partition("?")[2].split("&"))
        start, end, step = (int(fields[each]) for each in ("start", "end", "step"))
        values = [[at, str(at - start)] for at in range(start, end + 1, step)]
        return said({"metric": labels, "values": values})

    site.routes["/api/v1/query_range"] = ranged
    site.routes["/api/v1/query"] = said({"metric": labels, "value": [1, "5"]})


def said(series: object) -> bytes:
    return reply(json.dumps({"status": "success", "data": {"resultType": "x", "result": [series]}}).encode())


def test_a_prometheus_that_is_away_is_named(monitor: Callable[..., str], tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    found = opened(monitor(address), tmp_path)
    assert f"Prometheus at {address} cannot be reached: Connection refused" in found.dom
    assert set(states(found.dom)) == {"failed"}


@pytest.mark.parametrize("body", [b"<html>I am no Prometheus", b'{"status":"success","data":{"result":7}}'])
def test_what_is_no_prometheus_is_told(monitor: Callable[..., str], site: Site, tmp_path: Path, body: bytes) -> None:
    site.routes["/api/v1/query_range"] = site.routes["/api/v1/query"] = reply(body)
    found = opened(monitor(site.url("")), tmp_path)
    assert "no Prometheus" in found.dom
    assert set(states(found.dom)) == {"failed"}


def test_what_prometheus_refuses_is_shown_with_its_reason(
    monitor: Callable[..., str], site: Site, tmp_path: Path
) -> None:
    refused = reply(b'{"status":"error","error":"query timed out in expression evaluation"}', 503)
    site.routes["/api/v1/query_range"] = site.routes["/api/v1/query"] = refused
    assert "query timed out in expression evaluation" in opened(monitor(site.url("")), tmp_path).dom


def test_no_data_is_told_from_a_failure(monitor: Callable[..., str], site: Site, tmp_path: Path) -> None:
    nothing = reply(b'{"status":"success","data":{"resultType":"matrix","result":[]}}')
    site.routes["/api/v1/query_range"] = site.routes["/api/v1/query"] = nothing
    found = opened(monitor(site.url("")), tmp_path)
    assert "no data in this time" in found.dom
    assert set(states(found.dom)) == {"empty"}


def test_a_label_is_shown_as_it_is_and_never_becomes_markup(
    monitor: Callable[..., str], site: Site, tmp_path: Path
) -> None:
    answering(site, dict.fromkeys(("worker", "queue", "queue_name", "error", "subsystem", "status"), EVIL))
    found = opened(monitor(site.url("")), tmp_path)
    assert found.console == ()
    assert "&lt;img src=x onerror=" in found.dom
    assert "<img" not in found.dom
    assert states(found.dom)["drawn"]


@pytest.mark.parametrize("fragment", ["board=none&range=none&refresh=none", "range=__proto__&worker=%22%7D&%%%&=&="])
def test_an_address_that_makes_no_sense_shows_the_first_dashboard(
    monitor: Callable[..., str], site: Site, tmp_path: Path, fragment: str
) -> None:
    answering(site, {"queue": "api"})
    found = opened(f"{monitor(site.url(''))}#{fragment}", tmp_path)
    assert "<title>Gaia / Overview</title>" in found.dom
    assert 'data-state="shown"' in found.dom
    assert found.console == ()


def test_a_chosen_value_is_a_text_and_no_piece_of_a_query(
    monitor: Callable[..., str], site: Site, tmp_path: Path
) -> None:
    answering(site, {"worker": "w"})
    chosen = 'a"} or up{x=~".*\\'
    opened(f"{monitor(site.url(''))}#{urlencode({'board': 'gaia-workers', 'worker': chosen})}", tmp_path)
    queries = [parse_qs(urlsplit(each.target).query)["query"][0] for each in site.asked]
    found = [promql.parse(each) for each in queries if each.startswith("gaia_worker_ready{")]
    assert found
    for each in found:
        (matcher,) = each.matchers.matchers
        assert re.fullmatch(matcher.value, chosen)
        assert not re.fullmatch(matcher.value, "another")


def test_with_a_token_the_page_opens_and_its_figures_do_not(
    monitor: Callable[..., str], site: Site, tmp_path: Path
) -> None:
    answering(site, {"queue": "api"})
    address = monitor(site.url(""), GAIA_MONITOR__TOKEN=TOKEN)
    found = opened(address, tmp_path)
    assert "a token is needed" in found.dom
    assert '<form id="login">' in found.dom
    assert site.asked == []
    query = address.replace("/dashboard", "/api/v1/query?query=up")
    assert get(query)[0] == 401
    assert get(query, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert TOKEN not in get(address)[1]


LOGS_IN = f"""<script>
const tries = setInterval(() => {{
  if (document.getElementById("login").hidden) return;
  clearInterval(tries);
  document.getElementById("token").value = "{TOKEN}";
  document.getElementById("login").requestSubmit();
}}, 10);
</script>"""


def test_where_a_page_may_keep_nothing_the_token_shows_the_figures_all_the_same(site: Site, tmp_path: Path) -> None:
    cors = ("Access-Control-Allow-Origin: *", "Access-Control-Allow-Headers: Authorization")

    def guarded(asked: Asked, _: object) -> bytes:
        may = asked.method == "OPTIONS" or asked.headers.get("authorization") == f"Bearer {TOKEN}"
        nothing = b'{"status":"success","data":{"resultType":"matrix","result":[]}}'
        return reply(nothing, 200, *cors) if may else reply(b"", 401, *cors)

    site.routes["/api/v1/query_range"] = site.routes["/api/v1/query"] = guarded
    alone = "Content-Security-Policy: sandbox allow-scripts allow-forms"  # of an origin of its own, so without storage
    page = dashboard.served().body + LOGS_IN.encode()
    site.routes["/dashboard"] = reply(page, 200, "Content-Type: text/html; charset=utf-8", alone)
    found = opened(site.url("/dashboard"), tmp_path)
    assert set(states(found.dom)) == {"empty"}
    assert 'data-state="shown"' in found.dom


def test_the_token_shows_the_figures_a_choice_narrows_them_and_pointing_at_a_line_reads_it(
    monitor: Callable[..., str], site: Site, fresh_url: str, tmp_path: Path
) -> None:
    answering(site, {"worker": "w"})
    address = monitor(site.url(""), GAIA_MONITOR__TOKEN=TOKEN)
    own = {"GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{urlsplit(address).port}"])}
    steps = (
        browser.Step("type", selector="#token", text=TOKEN),
        browser.Step("click", selector="#login button"),
        browser.Step("wait", selector="#choice-worker option[value=w]"),
        browser.Step("wait", selector="body[data-state=shown]"),
        browser.Step("select", selector="#choice-worker", text="w"),
        browser.Step("wait", selector="body[data-state=shown] section.timeseries[data-state=drawn]"),
        browser.Step("click", selector="section.timeseries svg"),
    )
    call = browser.Capture(
        f"{address}#board=gaia-workers", formats=("html",), wait_for="#login:not([hidden])", steps=steps
    )
    with cluster.worker(fresh_url, "browser", log=tmp_path / "log", **own), Gaia(fresh_url) as g:
        html = g.submit(call).get(timeout=60).html
    assert html is not None
    assert TOKEN not in html
    (read,) = re.findall(r'<div class="note" style=[^>]*>(.*?)</div>', html)
    assert re.search(r'<span class="name">w</span><span class="value">\d', read)
    until(lambda: any("worker%3D~%22w%22" in each.target for each in site.asked), what="a question about that worker")

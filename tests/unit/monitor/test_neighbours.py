"""Pages of workers, asked over real sockets."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from gaia.store.nodes import Node
from tasks.cli.server import free_port
from tasks.monitor import neighbours as module
from tasks.monitor.neighbours import Neighbours
from tasks.monitor.series import Book
from tasks.runtime.pages import Asked, Page, Server
from tasks.runtime.tokens import derived
from tests.support.cluster import get
from tests.support.waiting import until
from tests.support.web import Site, hanging, reply

HERE = socket.gethostname()

WELL = {"status": "healthy", "reasons": [], "subsystems": {"api": {"status": "healthy", "reasons": []}}}


def node(endpoint: str, name: str = "api@vm", host: str = HERE) -> Node:
    return Node(name, "b" * 16, 1, host, ("api",), 10, "0.1.0", 0.0, endpoint=endpoint)


@pytest.fixture
def serve() -> Iterator[Callable[..., Node]]:
    servers: list[Server] = []

    def start(answer: Callable[[Asked], Page], token: str | None = None, name: str = "api@vm") -> Node:
        servers.append(Server("127.0.0.1", 0, answer))
        found = node(f"http://127.0.0.1:{servers[-1].port}", name)
        if token is not None:
            servers[-1].accept(derived(token, found.endpoint))
        servers[-1].start()
        return found

    yield start
    for each in servers:
        each.close()


def asking(*nodes: Node, token: str | None = None) -> Neighbours:
    return Neighbours(lambda: nodes, token, Book())


def well(asked: Asked) -> Page:
    return Page.of(WELL)


def test_a_worker_is_asked_with_its_own_token_and_its_report_shows(serve: Callable[..., Node]) -> None:
    token = "right-token-right"
    found = asking(serve(well, token), token=token)
    found.round()
    (report,) = found.reports
    assert (report.status, report.ready) == ("healthy", True)
    assert b'gaia_node_ready{worker="api@vm"} 1' in found._book.text()
    assert b'gaia_subsystem_workers{subsystem="api",status="healthy"} 1' in found._book.text()
    found.close()


ODD = b'{"status": "healthy", "reasons": [], "subsystems": %s}'


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b"no json", b'{"status": "healthy"}'),
        *(ODD % each for each in (b'{"api": 5}', b"[]", b'{"api": {}}', b'{"api": {"status": 1, "reasons": 7}}')),
    ],
)
def test_an_answer_that_is_none_is_unhealthy(serve: Callable[..., Node], body: bytes) -> None:
    found = asking(serve(lambda _: Page(body)))
    found.round()
    assert found.reports[0].status == "unhealthy"
    found.close()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:{port}", "ftp://worker:1", "http://worker:no", "http://:9"])
def test_a_worker_that_is_not_there_is_unhealthy_and_keeps_nobody_waiting(endpoint: str) -> None:
    gone: Any = node(endpoint.format(port=free_port("127.0.0.1")))
    found = asking(gone)
    found.round()
    for report in found.reports:
        assert (report.status, report.ready) == ("unhealthy", False)
        assert "api" in report.subsystems
    found.close()


def test_a_page_that_is_too_large_is_not_handed_on(serve: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES", 10)
    found = asking(serve(lambda _: Page(b"x" * 11)))
    page = found.page("api@vm", "/metrics")
    assert page is not None
    assert page.status == 502
    assert found.page("other@vm", "/metrics") is None
    found.close()


def test_a_redirect_is_not_followed(serve: Callable[..., Node]) -> None:
    found = asking(serve(lambda _: Page(b"", 302)))
    page = found.page("api@vm", "/metrics")
    assert page is not None
    assert page.status == 302
    found.close()


def test_a_planted_node_learns_what_opens_nothing_else(serve: Callable[..., Node], site: Site) -> None:
    token = "right-token-right"
    site.routes |= {"/readiness": reply(), "/health": reply(b"{}")}
    worker, planted = serve(well, token), node(site.url(""), "planted@vm")
    found = asking(worker, planted, token=token)
    found.round()
    told = {each.headers["authorization"] for each in site.asked}
    assert told == {f"Bearer {derived(token, planted.endpoint)}"}
    assert [get(f"{worker.endpoint}/health", Authorization=each)[0] for each in told] == [401]
    assert token not in str(site.asked)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/plain; version=0.0.4; charset=utf-8", 200),
        ("application/json", 200),
        ("application/openmetrics-text; version=1.0.0", 200),
        ("text/html", 502),
        ("image/svg+xml", 502),
        ("text/html, text/plain", 502),
        ("text/plain\r\n ;x", 502),
    ],
)
def test_what_a_browser_would_run_is_not_handed_on(site: Site, kind: str, status: int) -> None:
    site.routes["/metrics"] = reply(b"<script>", 200, f"Content-Type: {kind}")
    page = asking(node(site.url(""))).page("api@vm", "/metrics")
    assert page is not None
    assert (page.status, page.body == b"<script>") == (status, status == 200)


def hung(site: Site) -> AbstractContextManager[threading.Semaphore]:
    """Have a worker hang."""
    return hanging(site, "/readiness", "/health", "/metrics")


def test_workers_that_hang_stall_no_round_and_no_other_worker(
    serve: Callable[..., Node], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROUND_S", 1.0)
    monkeypatch.setattr(module, "HEALTH_BOUND_S", 60.0)
    nodes = [node(site.url(""), f"{number}@hung") for number in range(2 * module.ASKED_AT_ONCE)]
    with hung(site) as told:
        found = asking(*nodes, serve(well, name="z@vm"))
        found.round()
        assert all("does not answer" in each.reasons[0] for each in found.reports)
        for _ in range(module.ASKED_AT_ONCE):
            assert told.acquire(timeout=20)
    monkeypatch.setattr(module, "HEALTH_BOUND_S", 1.0)
    monkeypatch.setattr(module, "ROUND_S", 20.0)
    until(lambda: found.round() or next(each for each in found.reports if each.node.name == "z@vm").answered, 60)
    # Who answered is asked first from now on.
    monkeypatch.setattr(module, "HEALTH_BOUND_S", 60.0)
    monkeypatch.setattr(module, "ROUND_S", 1.0)
    with hung(site):
        found.round()
        assert {each.node.name for each in found.reports if each.answered} >= {"z@vm"}


def test_an_old_report_says_nothing(serve: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    found = asking(serve(well))
    found.round()
    assert found.reports[0].ready
    monkeypatch.setattr(module, "REPORT_LIFE_S", -1.0)
    (report,) = found.reports
    assert (report.status, report.ready) == ("unhealthy", False)
    assert "not asked for" in report.reasons[0]


def test_pages_of_workers_that_hang_leave_room_for_those_of_others(
    serve: Callable[..., Node], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEALTH_BOUND_S", 0.3)
    monkeypatch.setattr(module, "PAGE_BOUND_S", 60.0)
    found = asking(node(site.url(""), "h@hung"), serve(well, name="a@vm"))
    with ThreadPoolExecutor(module.SILENT_AT_ONCE) as pool, hung(site) as told:
        found.round()
        assert told.acquire(timeout=20)
        scrapes = [pool.submit(found.handed_on, "h@hung", "/metrics") for _ in range(module.SILENT_AT_ONCE)]
        for _ in scrapes:
            assert told.acquire(timeout=20)
        refused, well_page = found.handed_on("h@hung", "/metrics"), found.handed_on("a@vm", "/metrics")
        assert refused is not None
        assert well_page is not None
        assert (refused.status, well_page.status) == (503, 200)

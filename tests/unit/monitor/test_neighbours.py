"""Pages of workers, asked over real sockets."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gaia.store.nodes import Node
from tasks.cli.server import free_port
from tasks.monitor import neighbours as module
from tasks.monitor.neighbours import Neighbours, is_reachable
from tasks.monitor.series import Book
from tasks.runtime.pages import Asked, Page, Server

HERE = socket.gethostname()

WELL = {"status": "healthy", "reasons": [], "subsystems": {"api": {"status": "healthy", "reasons": []}}}


def node(endpoint: str, name: str = "api@vm", host: str = HERE) -> Node:
    return Node(name, "b" * 16, 1, host, ("api",), 10, "0.1.0", 0.0, endpoint=endpoint)


@pytest.fixture
def serve() -> Iterator[Callable[..., Node]]:
    servers: list[Server] = []

    def start(answer: Callable[[Asked], Page], token: str | None = None) -> Node:
        servers.append(Server("127.0.0.1", 0, answer, token=token))
        servers[-1].start()
        return node(f"http://127.0.0.1:{servers[-1].port}")

    yield start
    for each in servers:
        each.close()


def asking(*nodes: Node, token: str | None = None) -> Neighbours:
    return Neighbours(lambda: nodes, token, Book())


def well(asked: Asked) -> Page:
    return Page.of(WELL)


@pytest.mark.parametrize(
    ("endpoint", "host", "expected"),
    [
        ("http://127.0.0.1:1", HERE, True),
        ("http://127.0.0.1:1", "elsewhere", False),
        ("http://[::1]:1", "elsewhere", False),
        ("http://localhost:1", "elsewhere", False),
        ("http://worker-7:9809", "elsewhere", True),
        ("", HERE, False),
    ],
)
def test_loopback_is_reached_on_its_own_machine_alone(endpoint: str, host: str, expected: bool) -> None:
    assert is_reachable(node(endpoint, host=host)) is expected


def test_a_worker_is_asked_with_the_token_and_its_report_shows(serve: Callable[..., Node]) -> None:
    token = "right-token-right"
    found = asking(serve(well, token), token=token)
    found.round()
    (report,) = found.reports
    assert (report.status, report.ready) == ("healthy", True)
    assert b'gaia_node_ready{worker="api@vm"} 1' in found._book.text()
    assert b'gaia_subsystem_workers{subsystem="api",status="healthy"} 1' in found._book.text()
    found.close()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"no json", b'{"status": "healthy"}'])
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

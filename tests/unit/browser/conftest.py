"""A service with a real Chromium, and a site that it may reach."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from config.settings import Browser
from gaia.contracts.browser import Capture, Captured
from gaia.errors import ConnectFailed, EgressDenied, NotConfigured
from tasks.browser import chromium
from tasks.browser.service import BrowserService
from tasks.runtime.identity import Identity
from tasks.scope import Scope
from tests.support.web import Site


class Allowing:
    """Dials chosen ports of loopback, under any name that ends in .test, and nothing else."""

    def __init__(self) -> None:
        self.ports: set[int] = set()
        self.asked: list[tuple[str, int]] = []

    def dial(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        self.asked.append((host, port))
        if port not in self.ports or not (host == "127.0.0.1" or host.endswith(".test")):
            raise EgressDenied(host, host, "it is not on the list")
        try:
            return socket.create_connection(("127.0.0.1", port), timeout_s)
        except OSError as failure:
            raise ConnectFailed(host, str(failure.strerror)) from None


@pytest.fixture(scope="session", autouse=True)
def _chromium() -> None:
    try:
        chromium.find(None)
    except NotConfigured as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def dialler() -> Allowing:
    return Allowing()


@pytest.fixture(scope="module")
def service(dialler: Allowing) -> Iterator[BrowserService]:
    with closing(
        BrowserService(settings=Browser(warm_tabs=0), dialler=dialler, holder=Identity("browser@test"))
    ) as started:
        yield started


@pytest.fixture
def site(dialler: Allowing) -> Iterator[Site]:
    with Site() as server:
        port = server.port
        dialler.ports.add(port)
        yield server
        dialler.ports.discard(port)


@pytest.fixture
def take(service: BrowserService) -> Callable[..., Captured]:
    """Capture with the fields of a call."""

    def capture(**fields: object) -> Captured:
        return service.capture(Capture(**fields), Scope.lasting(60, operation=Capture.OPERATION))  # type: ignore[arg-type]

    return capture

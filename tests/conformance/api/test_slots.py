"""However a request ends, its slots are free afterwards."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from gaia.contracts import api
from gaia.errors import (
    BadReply,
    BodyTooLarge,
    Cancelled,
    ConnectFailed,
    DeadlineExceeded,
    EgressDenied,
    GaiaError,
    TimedOut,
    TooManyRedirects,
)
from gaia.store.limits import Limit
from tasks.scope import Scope
from tests.support.requests import ONCE, Make, limits, send
from tests.support.waiting import until
from tests.support.web import Asked, Site, reply


def drop(asked: Asked, sock: socket.socket) -> None:
    """Close the connection."""


def hold(asked: Asked, sock: socket.socket) -> None:
    """Wait until the client leaves."""
    sock.recv(1)


ENDS = {
    "/drop": (drop, ConnectFailed),
    "/hold": (hold, TimedOut),
    "/large": (reply(b"x" * 1000), BodyTooLarge),
    "/wild": (b"this is no HTTP\r\n\r\n", BadReply),
    "/loop": (reply(b"", 302, "Location: /loop"), TooManyRedirects),
    "/inside": (reply(b"", 302, "Location: http://10.0.0.1/"), EgressDenied),
    "/bomb": (reply(b"no gzip", 200, "Content-Encoding: gzip"), BadReply),
}


@pytest.mark.parametrize("path", ENDS)
def test_a_failed_request_leaves_its_slots(make_service: Make, site: Site, path: str) -> None:
    route, kind = ENDS[path]
    site.routes |= {path: route, "/fine": reply(b"fine")}  # type: ignore[dict-item]  # routes of either kind
    limited = limits(**{"127.0.0.1": Limit(concurrency=1, failure_threshold=1000)})
    service = make_service(site, limited=limited)
    for _ in range(2):
        with pytest.raises(kind):
            send(service, site.url(path), timeout_s=0.3, max_body_bytes=100, max_redirects=2)
        assert send(service, site.url("/fine")).body == b"fine"
    for name in ("127.0.0.1", "pool:connections"):
        until(lambda name=name: limited._leases.held(f"slots:{name}") == 0, what=f"the free slots of {name}")


@pytest.mark.parametrize("kind", [Cancelled, DeadlineExceeded])
def test_a_request_that_is_left_leaves_its_slots(make_service: Make, site: Site, kind: type[GaiaError]) -> None:
    site.routes |= {"/hold": hold, "/fine": reply(b"fine")}
    limited = limits(**{"127.0.0.1": Limit(concurrency=1)})
    service = make_service(site, limited=limited)
    scope = Scope.lasting(60 if kind is Cancelled else 0.5)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(service.request, api.Request(url=site.url("/hold"), retry=ONCE), scope)
        until(lambda: site.asked, what="the request")
        if kind is Cancelled:
            scope.cancelled.set()
        assert isinstance(running.exception(10), kind)
    assert send(service, site.url("/fine")).body == b"fine"
    until(lambda: limited._leases.held("slots:127.0.0.1") == 0, what="free slots")

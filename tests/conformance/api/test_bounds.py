"""Time and cancel: no server can hold a call longer than it is meant to last."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from gaia.contracts import api
from gaia.errors import Cancelled, DeadlineExceeded, TimedOut
from tasks.scope import Scope
from tests.support.requests import ONCE, Make, send
from tests.support.waiting import until
from tests.support.web import Asked, Site, reply

Talk = Callable[[Asked, socket.socket], None]


def drip(site: Site, head: bytes) -> Talk:
    """Send the head, then a byte every now and then, for ever."""

    def talk(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(head)
        while not site.stopped.wait(0.02):
            sock.sendall(b"x")

    return talk


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 60000\r\n\r\n",
    ],
)
def test_a_server_that_drips_is_left_when_the_time_is_over(make_service: Make, site: Site, head: bytes) -> None:
    site.routes["/a"] = drip(site, head)
    with pytest.raises(TimedOut) as caught:
        send(make_service(site), site.url("/a"), timeout_s=0.3)
    assert caught.value.timeout_s == 0.3
    until(lambda: not site._open, what="the end of the connection")


def test_the_time_counts_over_all_redirects(make_service: Make, site: Site) -> None:
    def again(asked: Asked, sock: socket.socket) -> bytes:
        site.stopped.wait(0.05)
        return reply(b"", 302, "Location: /a")

    site.routes["/a"] = again
    with pytest.raises(TimedOut):
        send(make_service(site), site.url("/a"), timeout_s=0.3, max_redirects=50)


def test_a_server_that_never_reads_is_left_when_the_time_is_over(make_service: Make, site: Site) -> None:
    def deaf(*_: object) -> bool:
        site.stopped.wait(20)
        return False

    site._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    site._answer = deaf  # type: ignore[method-assign, assignment]  # it never reads
    with pytest.raises(TimedOut):
        send(make_service(site), site.url("/a"), method="POST", body=b"x" * 30_000_000, timeout_s=0.3)


def test_the_deadline_bounds_what_the_call_allows(make_service: Make, site: Site) -> None:
    site.routes["/a"] = drip(site, b"HTTP/1.1 200 ")
    with pytest.raises(DeadlineExceeded):
        make_service(site).request(api.Request(url=site.url("/a"), timeout_s=30, retry=ONCE), Scope.lasting(0.3))


@pytest.mark.parametrize(
    "head", [None, b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"]
)
def test_a_cancel_closes_the_connection_under_the_call(make_service: Make, site: Site, head: bytes | None) -> None:
    def hold(asked: Asked, sock: socket.socket) -> None:
        if head is not None:
            sock.sendall(head)
        sock.recv(1)  # until the client leaves

    site.routes["/a"] = hold
    scope = Scope.lasting(60)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(make_service(site).request, api.Request(url=site.url("/a"), retry=ONCE), scope)
        until(lambda: site.asked, what="the request")
        scope.cancelled.set()
        assert isinstance(running.exception(10), Cancelled)
    until(lambda: not site._open, what="the end of the connection")


def test_a_cancelled_call_dials_nothing(make_service: Make, site: Site) -> None:
    scope = Scope.lasting(60)
    scope.cancelled.set()
    with pytest.raises(Cancelled):
        make_service(site).request(api.Request(url=site.url("/a"), retry=ONCE), scope)
    assert site.connections == 0


def test_a_late_cancel_does_not_touch_the_connection_in_other_hands(make_service: Make, site: Site) -> None:
    service, site.routes["/a"] = make_service(site), reply()
    scope = Scope.lasting(60)
    service.request(api.Request(url=site.url("/a"), retry=ONCE), scope)
    scope.cancelled.set()
    send(service, site.url("/a"))
    assert site.connections == 1

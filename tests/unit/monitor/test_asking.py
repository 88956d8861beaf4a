"""A page of another server is had within one bound, however the server drags it out."""

import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from tasks.monitor import asking
from tasks.runtime.pages import Page, Server
from tests.support.web import Site, reply

HEAD = b"HTTP/1.0 200 OK\r\nContent-Length: 500\r\n\r\n"


def asked(base: str, bound_s: float = 20.0, most_bytes: int = 1000) -> Page:
    return asking.page(base, "/", bound_s=bound_s, most_bytes=most_bytes)


@pytest.fixture
def secure(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Site(context) as found:
        yield found


def address(site: Site) -> str:
    return site.url("", "localhost" if site.context else "127.0.0.1")


def test_a_page_is_had_where_its_last_byte_closes_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does in newer versions of Python, of a server that closes as HTTP/1.0 does: ours."""
    plain = HTTPResponse.read1

    def read1(self: HTTPResponse, n: int = -1) -> bytes:
        found = plain(self, n)
        if self.length == 0:
            self.close()
        return found

    monkeypatch.setattr(HTTPResponse, "read1", read1)
    server = Server("127.0.0.1", 0, lambda _: Page(b"x" * 1000))
    server.start()
    try:
        assert asked(f"http://127.0.0.1:{server.port}").body == b"x" * 1000
    finally:
        server.close()


@pytest.mark.parametrize("begin", [b"HTTP/1.0 200 ", HEAD[:-2] + b"X-Field: ", HEAD], ids=["status", "head", "body"])
@pytest.mark.parametrize("kind", ["site", "secure"])
def test_one_that_drips_is_left_when_the_time_has_passed(
    request: pytest.FixtureRequest, kind: str, begin: bytes
) -> None:
    site: Site = request.getfixturevalue(kind)

    dripped_all = []

    def drip(_: Any, sock: Any) -> None:
        sock.sendall(begin)
        for _ in range(500):
            sock.sendall(b"x")
            site.stopped.wait(0.01)
        dripped_all.append(True)

    site.routes["/"] = drip
    with pytest.raises(TimeoutError):
        asked(address(site), 0.3)
    assert not dripped_all


def test_one_that_does_not_shake_hands_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        asked(f"https://localhost:{silent.getsockname()[1]}", 0.2)


def test_a_page_is_had_over_tls(secure: Site) -> None:
    secure.routes["/"] = reply(b"x" * 1000)
    assert asked(address(secure)).body == b"x" * 1000
    with pytest.raises(ssl.SSLCertVerificationError):
        asked(secure.url("", "127.0.0.1"))


def test_a_page_that_breaks_off_is_none(site: Site) -> None:
    def breaks_off(_: Any, sock: Any) -> None:
        sock.sendall(HEAD + b"x" * 499)

    site.routes["/"] = breaks_off
    with pytest.raises(IncompleteRead):
        asked(address(site))


@pytest.mark.parametrize("said", [b"", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n" + b"x" * 70_000])
def test_what_is_no_answer_is_an_error(site: Site, said: bytes) -> None:
    site.routes["/"] = lambda _, sock: sock.sendall(said)
    with pytest.raises((OSError, HTTPException)):
        asked(address(site))

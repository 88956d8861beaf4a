"""TLS: the certificate and the name are checked against the host, though the socket is dialled by address."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.settings import Api
from gaia.contracts import api
from gaia.errors import Cancelled, ConnectFailed, TimedOut, TlsFailed
from tasks.scope import Scope
from tests.support.requests import Make, send
from tests.support.waiting import until
from tests.support.web import Site, reply


@pytest.fixture
def secure(certificate: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Site(context) as server:
        yield server


def test_a_trusted_certificate_of_the_name_is_accepted(make_service: Make, secure: Site, certificate: Path) -> None:
    assert secure.context is not None
    names: list[str | None] = []
    secure.context.sni_callback = lambda _, name, __: names.append(name)
    secure.routes["/a"] = reply(b"x" * 200_000)
    service = make_service(secure, settings=Api(ca_file=certificate))
    for _ in range(2):
        assert len(send(service, secure.url("/a", "localhost")).body) == 200_000
    send(service, secure.url("/a", "localhost"), method="POST", body=b"y" * 1_000_000)
    assert names == ["localhost"]
    assert secure.asked[0].headers["host"] == f"localhost:{secure.port}"
    assert len(secure.asked[2].body) == 1_000_000


def test_an_unknown_authority_is_refused(make_service: Make, secure: Site) -> None:
    with pytest.raises(TlsFailed, match="self-signed") as caught:
        send(make_service(secure), secure.url("/a", "localhost"))
    assert caught.value.host == "localhost"
    assert secure.asked == []


def test_a_certificate_of_another_name_is_refused(make_service: Make, secure: Site, certificate: Path) -> None:
    with pytest.raises(TlsFailed, match="not valid for"):
        send(make_service(secure, settings=Api(ca_file=certificate)), secure.url("/a", "127.0.0.1"))


def test_without_verify_any_certificate_does_and_nobody_warns(make_service: Make, secure: Site) -> None:
    secure.routes["/a"] = reply(b"x")
    assert send(make_service(secure), secure.url("/a"), verify=False).body == b"x"


def test_an_unverified_connection_never_serves_a_call_that_verifies(make_service: Make, secure: Site) -> None:
    secure.routes["/a"] = reply(b"x")
    service = make_service(secure)
    send(service, secure.url("/a"), verify=False)
    with pytest.raises(TlsFailed):
        send(service, secure.url("/a"))


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_server_without_tls_is_refused(make_service: Make, mute: socket.socket) -> None:
    service = make_service(Silent(mute))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(send, service, f"https://127.0.0.1:{mute.getsockname()[1]}/")
        peer, _ = mute.accept()
        with peer:
            peer.sendall(reply(b"this is plain HTTP", 400))
            assert isinstance(running.exception(10), TlsFailed)


def test_a_server_that_leaves_within_the_handshake_is_a_failed_connection(
    make_service: Make, mute: socket.socket
) -> None:
    service = make_service(Silent(mute))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(send, service, f"https://127.0.0.1:{mute.getsockname()[1]}/")
        mute.accept()[0].close()
        assert isinstance(running.exception(10), ConnectFailed)


def test_a_handshake_that_never_ends_ends_with_the_time(make_service: Make, mute: socket.socket) -> None:
    service = make_service(Silent(mute))
    with pytest.raises(TimedOut):
        send(service, f"https://127.0.0.1:{mute.getsockname()[1]}/", timeout_s=0.3)


def test_a_cancel_ends_a_handshake(make_service: Make, mute: socket.socket) -> None:
    service, scope = make_service(Silent(mute)), Scope.lasting(60)
    call = api.Request(url=f"https://127.0.0.1:{mute.getsockname()[1]}/")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(service.request, call, scope)
        peer, _ = mute.accept()
        with peer:
            assert until(lambda: peer.recv(1), what="the client's hello")
            scope.cancelled.set()
            assert isinstance(running.exception(10), Cancelled)


class Silent:
    """What a service needs to know of a server that says nothing."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]

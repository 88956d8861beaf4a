"""Proxies by name: credentials go to the proxy alone, and nobody gets through one to where he may not go himself."""

import selectors
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from config.settings import Api
from gaia.errors import ConnectFailed, EgressDenied, InvalidCall, NameNotFound, TlsFailed
from tests.support.requests import Make, send
from tests.support.web import Asked, Site, reply

CREDENTIALS = "Basic dXNlcjpnZWhlaW1uaXM="
"""What `user:geheimnis` becomes."""


def through(proxy: Site, **fields: object) -> Api:
    """Give settings that know the proxy `corp`."""
    url = SecretStr(f"http://user:geheimnis@127.0.0.1:{proxy.port}")
    return Api(proxies={"corp": url}, **fields)  # type: ignore[arg-type]  # of the settings


@pytest.fixture
def proxy() -> Iterator[Site]:
    with Site() as server:
        yield server


@pytest.fixture
def secure(certificate: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Site(context) as server:
        server.routes["/a"] = reply(b"inside")
        yield server


def tunnel(port: int) -> object:
    """Make a route that takes CONNECT and carries bytes to a port of loopback."""

    def carry(asked: Asked, sock: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as inner, selectors.DefaultSelector() as ready:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = {sock: inner, inner: sock}
            for each in ways:
                ready.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select(10):
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    ways[key.fileobj].sendall(data)

    return carry


def test_a_plain_request_is_sent_whole_to_the_proxy_with_its_credentials(
    make_service: Make, site: Site, proxy: Site
) -> None:
    proxy.routes[site.url("/a")] = reply(b"by proxy")
    service = make_service(site, proxy, settings=through(proxy))
    assert send(service, site.url("/a?x=1"), proxy="corp").body == b"by proxy"
    assert (proxy.asked[0].target, proxy.asked[0].headers["host"]) == (site.url("/a?x=1"), f"127.0.0.1:{site.port}")
    assert proxy.asked[0].headers["proxy-authorization"] == CREDENTIALS
    assert site.connections == 0


def test_a_body_goes_through_the_proxy(make_service: Make, site: Site, proxy: Site) -> None:
    proxy.routes[site.url("/a")] = reply(b"done")
    service = make_service(site, proxy, settings=through(proxy))
    assert send(service, site.url("/a"), method="POST", json={"a": 1}, proxy="corp").body == b"done"
    assert proxy.asked[0].body == b'{"a": 1}'


def test_what_follows_without_a_proxy_tells_nobody_its_credentials(make_service: Make, site: Site, proxy: Site) -> None:
    proxy.routes[site.url("/a")] = reply()
    site.routes["/a"] = reply()
    service = make_service(site, proxy, settings=through(proxy))
    send(service, site.url("/a"), proxy="corp", headers={"Authorization": "Bearer abc"})
    for method in ("GET", "POST"):
        send(service, site.url("/a"), method=method)
    for asked in site.asked:
        assert not {"proxy-authorization", "authorization"} & set(asked.headers)


def test_tls_goes_through_a_tunnel_and_is_checked_at_its_end(
    make_service: Make, secure: Site, proxy: Site, certificate: Path
) -> None:
    proxy.routes[f"localhost:{secure.port}"] = tunnel(secure.port)  # type: ignore[assignment]  # a route
    service = make_service(secure, proxy, settings=through(proxy, ca_file=certificate))
    for _ in range(2):
        assert send(service, secure.url("/a", "localhost"), proxy="corp").body == b"inside"
    assert {each.method for each in proxy.asked} == {"CONNECT"}
    assert proxy.asked[0].headers["proxy-authorization"] == CREDENTIALS
    assert "proxy-authorization" not in secure.asked[0].headers
    strict = make_service(secure, proxy, settings=through(proxy))
    with pytest.raises(TlsFailed):
        send(strict, secure.url("/a", "localhost"), proxy="corp")


@pytest.mark.parametrize("answer", [reply(b"", 407), reply(b"", 403), None])
def test_a_proxy_that_refuses_the_tunnel_is_a_failed_connection(
    make_service: Make, secure: Site, proxy: Site, answer: bytes | None
) -> None:
    proxy.routes[f"localhost:{secure.port}"] = lambda *_: answer
    service = make_service(secure, proxy, settings=through(proxy))
    with pytest.raises(ConnectFailed) as caught:
        send(service, secure.url("/a", "localhost"), proxy="corp")
    assert "geheimnis" not in repr(caught.value) + str(caught.value)
    assert secure.connections == 0


def test_what_may_not_be_dialled_may_not_be_asked_of_a_proxy_either(
    make_service: Make, site: Site, proxy: Site
) -> None:
    service = make_service(proxy, settings=through(proxy))
    for url in ("http://10.0.0.1/", "http://169.254.169.254/latest/", site.url("/a"), "http://2130706433:1/"):
        with pytest.raises(EgressDenied):
            send(service, url, proxy="corp")
    assert proxy.connections == 0


def test_a_redirect_that_a_proxy_brings_is_judged(make_service: Make, site: Site, proxy: Site) -> None:
    proxy.routes[site.url("/a")] = reply(b"", 302, "Location: http://10.0.0.1/")
    service = make_service(site, proxy, settings=through(proxy))
    with pytest.raises(EgressDenied):
        send(service, site.url("/a"), proxy="corp")
    assert len(proxy.asked) == 1


def test_a_name_that_only_the_proxy_can_resolve_is_left_to_it(make_service: Make, proxy: Site) -> None:
    proxy.routes["http://inner.corp.test/a"] = reply(b"known there")
    service = make_service(proxy, settings=through(proxy))
    assert send(service, "http://inner.corp.test/a", proxy="corp").body == b"known there"
    with pytest.raises(NameNotFound):
        send(service, "http://bad..name/", proxy="corp")


def test_a_proxy_itself_is_judged(make_service: Make, site: Site, proxy: Site) -> None:
    with pytest.raises(EgressDenied):
        send(make_service(site, settings=through(proxy)), site.url("/a"), proxy="corp")
    assert proxy.connections == 0


def test_a_proxy_that_is_not_there_is_a_failed_connection_and_tells_no_secret(make_service: Make, site: Site) -> None:
    with Site() as gone:
        service = make_service(site, gone, settings=through(gone))
    with pytest.raises(ConnectFailed) as caught:
        send(service, site.url("/a"), proxy="corp")
    assert "geheimnis" not in repr(caught.value) + str(caught.value)


def test_a_name_that_settings_do_not_know_is_refused(make_service: Make, site: Site) -> None:
    with pytest.raises(InvalidCall, match="proxy"):
        send(make_service(site), site.url("/a"), proxy="nobody")

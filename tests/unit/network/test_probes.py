"""Probes against real servers on loopback."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaia.contracts import network
from gaia.errors import BadReply, Cancelled, ConnectFailed, EgressDenied, NameNotFound, TimedOut, TlsFailed
from tasks.network import echo
from tasks.scope import Scope
from tests.support.dns import NameServer
from tests.support.waiting import until
from tests.support.web import Site, reply
from tests.unit.network.conftest import Make

HERE = ("127.0.0.1/32",)


@pytest.fixture
def secure(certificate: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["http/1.1"])
    with Site(context) as server:
        yield server


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_connection_is_made_and_timed(make: Make, site: Site, name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 127.0.0.1")
    found = make(name_server, cidrs=HERE).probe_tcp(network.ProbeTcp("www.test", site.port), Scope.lasting())
    assert (found.host, found.port, found.address) == ("www.test", site.port, "127.0.0.1")
    assert found.dns_s > 0
    assert found.connect_s > 0


def test_a_port_that_is_not_allowed_is_never_dialled(make: Make, site: Site) -> None:
    service = make(cidrs=HERE, ports=("443", "8000-8999"))
    calls = (network.ProbeTcp("127.0.0.1", site.port), network.ProbeTcp("none.test", site.port))
    for call in calls:
        with pytest.raises(EgressDenied, match="PROBE_PORTS"):
            service.probe_tcp(call, Scope.lasting())
    with pytest.raises(EgressDenied):
        service.probe_tls(network.ProbeTls("127.0.0.1", site.port), Scope.lasting())
    with pytest.raises(EgressDenied):
        service.probe_http(network.ProbeHttp(site.url("/")), Scope.lasting())
    assert site.connections == 0


def test_an_address_that_is_not_allowed_is_never_dialled(make: Make, site: Site, name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 127.0.0.1")
    service = make(name_server)
    with pytest.raises(EgressDenied, match="loopback"):
        service.probe_tcp(network.ProbeTcp("www.test", site.port), Scope.lasting())
    with pytest.raises(EgressDenied, match="loopback"):
        service.ping(network.Ping("www.test", port=site.port), Scope.lasting())
    with pytest.raises(EgressDenied):
        service.probe_http(network.ProbeHttp(f"http://www.test:{site.port}/"), Scope.lasting())
    assert site.connections == 0


def test_nobody_there_is_a_failure(make: Make, name_server: NameServer) -> None:
    service = make(name_server, cidrs=HERE)
    with pytest.raises(ConnectFailed, match="refused"):
        service.probe_tcp(network.ProbeTcp("127.0.0.1", free_port()), Scope.lasting())
    with pytest.raises(NameNotFound):
        service.probe_tcp(network.ProbeTcp("none.test", 443), Scope.lasting())


def test_a_certificate_is_told_and_found_good(make: Make, secure: Site, certificate: Path) -> None:
    service = make(cidrs=HERE, ca_file=certificate)
    found = service.probe_tls(network.ProbeTls("127.0.0.1", secure.port, server_name="localhost"), Scope.lasting())
    assert (found.verified, found.reason, found.alpn) == (True, "", "http/1.1")
    assert found.protocol in {"TLSv1.2", "TLSv1.3"}
    (only,) = found.chain
    assert (only.subject, only.issuer, only.names) == ("commonName=localhost", "commonName=localhost", ("localhost",))
    assert len(only.sha256) == 64
    assert 86_400 < found.expires_in_s <= 2 * 86_400
    assert only.not_before_s < only.not_after_s
    assert found.tls_s > 0


@pytest.mark.parametrize(("trusted", "reason"), [(False, "self-signed"), (True, "not valid for")])
def test_a_bad_certificate_is_an_answer(
    make: Make, secure: Site, certificate: Path, trusted: bool, reason: str
) -> None:
    service = make(cidrs=HERE, ca_file=certificate if trusted else None)
    found = service.probe_tls(network.ProbeTls("127.0.0.1", secure.port), Scope.lasting())
    assert not found.verified
    assert reason in found.reason
    assert found.chain[0].names == ("localhost",)


def test_what_is_no_tls_is_a_failure_and_silence_is_bounded(make: Make, mute: socket.socket) -> None:
    service = make(cidrs=HERE)
    with pytest.raises(TimedOut):
        service.probe_tls(network.ProbeTls("127.0.0.1", mute.getsockname()[1], timeout_s=0.3), Scope.lasting())
    mute.accept()[0].close()

    def babble() -> None:
        sock, _ = mute.accept()
        with sock:
            sock.sendall(b"220 mail.test ready\r\n")

    thread = threading.Thread(target=babble)
    thread.start()
    with pytest.raises(TlsFailed):
        service.probe_tls(network.ProbeTls("127.0.0.1", mute.getsockname()[1]), Scope.lasting())
    thread.join(10)


def test_a_cancel_ends_a_probe(make: Make, mute: socket.socket) -> None:
    service, scope = make(cidrs=HERE), Scope.lasting()
    failures: list[BaseException] = []

    def probe() -> None:
        try:
            service.probe_tls(network.ProbeTls("127.0.0.1", mute.getsockname()[1], timeout_s=60), scope)
        except BaseException as failure:  # noqa: BLE001 - looked at below
            failures.append(failure)

    thread = threading.Thread(target=probe)
    thread.start()
    taken, _ = mute.accept()
    scope.cancelled.set()
    thread.join(10)
    taken.close()
    assert [type(each) for each in failures] == [Cancelled]


def test_an_answer_is_timed_by_its_phases(make: Make, site: Site) -> None:
    site.routes["/a"] = reply(b"x" * 1000)
    found = make(cidrs=HERE).probe_http(network.ProbeHttp(site.url("/a?b=cä")), Scope.lasting())
    assert (found.status, found.size_bytes, found.truncated, found.tls_s) == (200, 1000, False, 0.0)
    assert 0 < found.first_byte_s <= found.total_s
    assert found.dns_s + found.connect_s <= found.total_s
    asked = site.asked[0]
    assert (asked.target, asked.headers["host"]) == ("/a?b=c%C3%A4", f"127.0.0.1:{site.port}")


def test_a_header_of_the_call_takes_the_place_of_ours(make: Make, site: Site) -> None:
    call = network.ProbeHttp(site.url("/"), headers={"HOST": "other.test", "Connection": "keep-alive"})
    make(cidrs=HERE).probe_http(call, Scope.lasting())
    assert (site.asked[0].headers["host"], site.asked[0].headers["connection"]) == ("other.test", "close")


def test_a_redirect_is_an_answer_and_a_body_is_cut(make: Make, site: Site) -> None:
    site.routes["/go"] = reply(b"", 302, "Location: http://127.0.0.1:1/")
    site.routes["/big"] = reply(b"x" * (2 * 1024 * 1024))
    service = make(cidrs=HERE)
    assert service.probe_http(network.ProbeHttp(site.url("/go")), Scope.lasting()).status == 302
    found = service.probe_http(network.ProbeHttp(site.url("/big")), Scope.lasting())
    assert (found.size_bytes, found.truncated) == (1024 * 1024, True)
    assert service.probe_http(network.ProbeHttp(site.url("/go"), method="HEAD"), Scope.lasting()).size_bytes == 0


def test_https_is_verified_unless_the_call_says_otherwise(make: Make, secure: Site, certificate: Path) -> None:
    secure.routes["/a"] = reply(b"x")
    service = make(cidrs=HERE)
    with pytest.raises(TlsFailed, match="self-signed"):
        service.probe_http(network.ProbeHttp(secure.url("/a")), Scope.lasting())
    found = service.probe_http(network.ProbeHttp(secure.url("/a"), verify=False), Scope.lasting())
    assert (found.status, found.tls_s > 0) == (200, True)


def test_an_answer_that_is_no_http_or_none_is_a_failure(make: Make, site: Site) -> None:
    site.routes["/bad"] = b"nonsense\r\n\r\n"
    site.routes["/none"] = lambda _, __: None
    service = make(cidrs=HERE)
    with pytest.raises(BadReply):
        service.probe_http(network.ProbeHttp(site.url("/bad")), Scope.lasting())
    with pytest.raises(ConnectFailed):
        service.probe_http(network.ProbeHttp(site.url("/none")), Scope.lasting())


def test_an_answer_that_drips_is_bounded_as_a_whole(make: Make, site: Site) -> None:
    def drip(_: object, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not site.stopped.wait(0.05):
                sock.sendall(b"H")

    site.routes["/drip"] = drip
    with pytest.raises(TimedOut):
        make(cidrs=HERE).probe_http(network.ProbeHttp(site.url("/drip"), timeout_s=0.5), Scope.lasting())


def test_a_ping_connects_where_icmp_is_not_permitted(make: Make, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> list[float]:
        raise PermissionError

    monkeypatch.setattr(echo, "ping", refused)
    found = make(cidrs=HERE).ping(network.Ping("127.0.0.1", port=site.port), Scope.lasting())
    assert (found.method, found.sent, found.received) == ("tcp", 3, 3)
    assert 0 < found.least_s <= found.mean_s <= found.most_s
    until(lambda: site.connections == 3, what="three connections")


def test_a_host_that_refuses_is_there_and_a_port_that_is_not_allowed_is_not_tried(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "ping", lambda *_: [])
    port = free_port()
    found = make(cidrs=HERE).ping(network.Ping("127.0.0.1", port=port, count=2), Scope.lasting())
    assert (found.method, found.received) == ("tcp", 2)
    with pytest.raises(EgressDenied, match="PROBE_PORTS"):
        make(cidrs=HERE, ports=("443",)).ping(network.Ping("127.0.0.1", port=port), Scope.lasting())


@pytest.mark.skipif(not echo.permitted(), reason="this process may send no ICMP (net.ipv4.ping_group_range)")
def test_a_ping_measures_round_trips(make: Make) -> None:
    found = make(cidrs=HERE).ping(network.Ping("127.0.0.1"), Scope.lasting())
    assert (found.method, found.sent, found.received) == ("icmp", 3, 3)


def test_an_answer_that_drips_over_tls_is_bounded_as_a_whole(make: Make, secure: Site) -> None:
    def drip(_: object, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not secure.stopped.wait(0.05):
                sock.sendall(b"H")

    secure.routes["/drip"] = drip
    call = network.ProbeHttp(secure.url("/drip"), verify=False, timeout_s=0.5)
    failures: list[BaseException] = []

    def probe() -> None:
        try:
            make(cidrs=HERE).probe_http(call, Scope.lasting())
        except TimedOut as failure:
            failures.append(failure)

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join(20)
    assert [type(each) for each in failures] == [TimedOut]


def test_a_cancel_ends_a_probe_over_tls(make: Make, secure: Site) -> None:
    scope, asked = Scope.lasting(), threading.Event()

    def silence(_: object, __: socket.socket) -> None:
        asked.set()
        secure.stopped.wait(60)

    secure.routes["/silent"] = silence
    failures: list[BaseException] = []

    def probe() -> None:
        try:
            make(cidrs=HERE).probe_http(network.ProbeHttp(secure.url("/silent"), verify=False, timeout_s=60), scope)
        except BaseException as failure:  # noqa: BLE001 - looked at below
            failures.append(failure)

    thread = threading.Thread(target=probe)
    thread.start()
    assert asked.wait(10)
    scope.cancelled.set()
    thread.join(3)  # the socket's own time-out is the dial's, 5 s
    secure.stopped.set()
    assert [type(each) for each in failures] == [Cancelled]

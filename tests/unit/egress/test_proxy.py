import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from gaia.errors import ConnectFailed, EgressDenied, GaiaError, NameNotFound, TimedOut
from tasks import metrics
from tasks.egress import descriptors
from tasks.egress.proxy import MAX_HEAD_BYTES, Proxy

WAIT_S = 10.0
Serve = Callable[[socket.socket], None]


class Dialler:
    """Knows one server, and what to say of other names."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[str, int]] = []
        self.failures: dict[str, GaiaError] = {}

    def dial(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        self.asked.append((host, port))
        if host in self.failures:
            raise self.failures[host]
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)


class Server:
    """Hands each connection to a function, in a thread."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._run, args=(connection,)))
            self._threads[-1].start()

    def _run(self, connection: socket.socket) -> None:
        connection.settimeout(WAIT_S)
        with connection, suppress(OSError):
            self._serve(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._threads:
            each.join(WAIT_S)


@pytest.fixture
def dialler() -> Dialler:
    return Dialler()


@pytest.fixture
def proxy(dialler: Dialler) -> Iterator[Proxy]:
    with closing(Proxy(dialler)) as started:
        yield started


@pytest.fixture
def server(dialler: Dialler) -> Iterator[Callable[[Serve], None]]:
    started: list[Server] = []

    def start(serve: Serve) -> None:
        started.append(Server(serve))
        dialler.port = started[-1].port

    yield start
    for each in started:
        each.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), WAIT_S)


def read_to_end(source: socket.socket) -> bytes:
    got = b""
    with suppress(ConnectionResetError):
        while chunk := source.recv(65536):
            got += chunk
    return got


def read_head(source: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        got += source.recv(1)
    return got


def exchange(proxy: Proxy, request: bytes) -> bytes:
    with connect(proxy) as client:
        client.sendall(request)
        return read_to_end(client)


def echo(connection: socket.socket) -> None:
    while chunk := connection.recv(65536):
        connection.sendall(chunk)


def answering(answer: bytes, seen: list[bytes]) -> Serve:
    def serve(connection: socket.socket) -> None:
        seen.append(read_head(connection))
        connection.sendall(answer)

    return serve


def test_connect_makes_a_tunnel(proxy: Proxy, dialler: Dialler, server: Callable[[Serve], None]) -> None:
    server(echo)
    with connect(proxy) as client:
        client.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"\0\1\2")
        assert client.recv(3) == b"\0\1\2"
    assert dialler.asked == [("example.org", 443)]


def test_what_follows_connect_at_once_reaches_the_server(proxy: Proxy, server: Callable[[Serve], None]) -> None:
    server(echo)
    with connect(proxy) as client:
        client.sendall(b"CONNECT example.org:443 HTTP/1.1\r\n\r\nearly")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client).endswith(b"\r\n\r\nearly")


def test_an_ipv6_literal_is_dialled_without_brackets(
    proxy: Proxy, dialler: Dialler, server: Callable[[Serve], None]
) -> None:
    server(echo)
    with connect(proxy) as client:
        client.sendall(b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n\r\n")
        read_head(client)
    assert dialler.asked == [("2001:db8::1", 8443)]


def test_a_request_goes_on_in_origin_form(proxy: Proxy, dialler: Dialler, server: Callable[[Serve], None]) -> None:
    seen: list[bytes] = []
    server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", seen))
    answer = exchange(proxy, b"GET http://example.org:8080/a/b?c=%20d HTTP/1.1\r\nHost: liar\r\nAccept: */*\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nok")
    assert seen == [b"GET /a/b?c=%20d HTTP/1.1\r\nHost: example.org:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n"]
    assert dialler.asked == [("example.org", 8080)]


def test_the_default_port_stays_out_of_the_host_header(
    proxy: Proxy, dialler: Dialler, server: Callable[[Serve], None]
) -> None:
    seen: list[bytes] = []
    server(answering(b"HTTP/1.1 204 No Content\r\n\r\n", seen))
    exchange(proxy, b"GET http://example.org HTTP/1.1\r\n\r\n")
    assert seen[0].startswith(b"GET / HTTP/1.1\r\nHost: example.org\r\n")
    assert dialler.asked == [("example.org", 80)]


def test_hop_by_hop_headers_stay_here(proxy: Proxy, server: Callable[[Serve], None]) -> None:
    seen: list[bytes] = []
    server(answering(b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n", seen))
    request = (
        b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nConnection: X-Mine\r\nX-Mine: 1\r\nTE: x"
    )
    answer = exchange(proxy, b"GET http://example.org/ HTTP/1.1\r\n" + request + b"\r\n\r\n")
    assert seen == [b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"]
    assert answer == b"HTTP/1.1 200 OK\r\nX-End: 2\r\nConnection: close\r\n\r\n"


def test_a_connection_header_cannot_strip_what_delimits_the_body(proxy: Proxy, server: Callable[[Serve], None]) -> None:
    seen: list[bytes] = []
    server(answering(b"HTTP/1.1 200 OK\r\n\r\n", seen))
    exchange(proxy, b"GET http://example.org/ HTTP/1.1\r\nConnection: content-length\r\nContent-Length: 0\r\n\r\n")
    assert b"Content-Length: 0" in seen[0]


def test_every_answer_says_close_after_an_interim_one_too(proxy: Proxy, server: Callable[[Serve], None]) -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nbody"
    server(answering(answer, []))
    _, final = exchange(proxy, b"GET http://example.org/ HTTP/1.1\r\n\r\n").split(b"\r\n\r\n", 1)
    assert final == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody"


def test_a_server_cannot_pretend_to_be_the_proxy(proxy: Proxy, server: Callable[[Serve], None]) -> None:
    server(answering(b"HTTP/1.1 403 Forbidden\r\nX-Gaia-Egress: denied\r\n\r\n", []))
    assert b"gaia" not in exchange(proxy, b"GET http://example.org/ HTTP/1.1\r\n\r\n").lower()


def test_a_large_body_goes_up_while_a_large_answer_comes_down(proxy: Proxy, server: Callable[[Serve], None]) -> None:
    body = bytes(range(256)) * 16384

    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        echo(connection)

    server(serve)
    with connect(proxy) as client:
        head = f"POST http://example.org/ HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        sender = threading.Thread(target=client.sendall, args=(head + body,))
        sender.start()
        got = read_head(client)
        while len(got) < len(body):
            got = got[got.find(b"\r\n\r\n") + 4 :] if got.startswith(b"HTTP/") else got
            got += client.recv(65536)
        sender.join(WAIT_S)
    assert got == body


@pytest.mark.parametrize(
    ("failure", "status", "mark"),
    [
        (EgressDenied("evil.test", "10.0.0.1", "private"), b"403", b"denied"),
        (NameNotFound("evil.test", "A"), b"502", b"failed"),
        (ConnectFailed("evil.test", "refused"), b"502", b"failed"),
        (TimedOut("dial", 1.0), b"504", b"failed"),
    ],
)
@pytest.mark.parametrize("line", [b"GET http://evil.test:443/ HTTP/1.1", b"CONNECT evil.test:443 HTTP/1.1"])
def test_a_failed_dial_is_told_and_kept(
    proxy: Proxy, dialler: Dialler, failure: GaiaError, status: bytes, mark: bytes, line: bytes
) -> None:
    dialler.failures["evil.test"] = failure
    answer = exchange(proxy, line + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"x-gaia-egress: " + mark in answer
    assert b"private" not in answer
    assert proxy.refusal("evil.test", 443) is failure
    assert proxy.refusal("evil.test", 80) is None


def test_a_refusal_is_forgotten_when_the_host_is_reached(
    proxy: Proxy, dialler: Dialler, server: Callable[[Serve], None]
) -> None:
    server(answering(b"HTTP/1.1 200 OK\r\n\r\n", []))
    dialler.failures["a.test"] = ConnectFailed("a.test", "refused")
    exchange(proxy, b"GET http://a.test/ HTTP/1.1\r\n\r\n")
    dialler.failures.clear()
    exchange(proxy, b"GET http://a.test/ HTTP/1.1\r\n\r\n")
    assert proxy.refusal("a.test", 80) is None


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"GET ftp://example.org/ HTTP/1.1\r\n\r\n",
        b"GET file:///etc/passwd HTTP/1.1\r\n\r\n",
        b"GET https://example.org/ HTTP/1.1\r\n\r\n",
        b"GET http:///path HTTP/1.1\r\n\r\n",
        b"GET http://example.org:99999/ HTTP/1.1\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\n\r\n",
        b"GET http://example.org/\r\n\r\n",
        b"GET http://example.org/ SPDY/3\r\n\r\n",
        b"CONNECT example.org HTTP/1.1\r\n\r\n",
        b"CONNECT :443 HTTP/1.1\r\n\r\n",
        b"CONNECT http://example.org:443 HTTP/1.1\r\n\r\n",
        b"GET http://example.org/ HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET http://example.org/ HTTP/1.1\r\nName : x\r\n\r\n",
        b"GET http://example.org/ HTTP/1.1\r\nA: b\nInjected: c\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET http://example.org/ HTTP/1.1\r\nA: " + b"x" * (MAX_HEAD_BYTES + 65536) + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_for_a_proxy_dials_nothing(proxy: Proxy, dialler: Dialler, request_: bytes) -> None:
    with connect(proxy) as client, suppress(OSError):
        client.sendall(request_)
        assert read_to_end(client) == b""
    assert dialler.asked == []


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 2 * MAX_HEAD_BYTES])
def test_what_is_no_answer_closes_the_connection(proxy: Proxy, server: Callable[[Serve], None], answer: bytes) -> None:
    server(answering(answer, []))
    assert exchange(proxy, b"GET http://example.org/ HTTP/1.1\r\n\r\n") == b""


def test_a_connection_at_rest_is_closed(dialler: Dialler, server: Callable[[Serve], None]) -> None:
    server(echo)
    with closing(Proxy(dialler, idle_s=0.05)) as proxy, connect(proxy) as client:
        client.sendall(b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
        read_head(client)
        assert read_to_end(client) == b""


def test_a_client_that_says_nothing_is_closed(dialler: Dialler) -> None:
    with closing(Proxy(dialler, idle_s=0.05)) as proxy, connect(proxy) as client:
        assert read_to_end(client) == b""


def test_a_hundred_tunnels_are_held_at_once(proxy: Proxy, server: Callable[[Serve], None]) -> None:
    server(echo)
    clients = [connect(proxy) for _ in range(100)]
    for number, each in enumerate(clients):
        each.sendall(b"CONNECT host%d.test:443 HTTP/1.1\r\n\r\n" % number)
    for number, each in enumerate(clients):
        assert read_head(each).startswith(b"HTTP/1.1 200")
        each.sendall(b"%03d" % number)
    assert [each.recv(3) for each in clients] == [b"%03d" % number for number in range(100)]
    assert metrics.REGISTRY.get_sample_value("gaia_proxy_connections") >= 100
    assert proxy.connections() == 100
    for each in clients:
        each.close()


def test_connections_over_the_limit_wait_for_one_to_end(
    dialler: Dialler, server: Callable[[Serve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.egress.proxy.MAX_CONNECTIONS", 2)
    server(echo)
    with closing(Proxy(dialler)) as proxy:
        held = [connect(proxy) for _ in range(2)]
        for each in held:
            each.sendall(b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
            read_head(each)
        with connect(proxy) as waiting:
            waiting.sendall(b"CONNECT next.example:443 HTTP/1.1\r\n\r\n")
            held[0].sendall(b"still")
            assert held[0].recv(5) == b"still"
            assert ("next.example", 443) not in dialler.asked
            held.pop().close()
            assert read_head(waiting).startswith(b"HTTP/1.1 200")
        for each in held:
            each.close()


def test_three_hundred_tunnels_are_held_by_one_thread(proxy: Proxy, server: Callable[[Serve], None]) -> None:
    server(lambda connection: connection.recv(1) and connection.sendall(b"!"))
    descriptors.raised(4096)
    clients = [connect(proxy) for _ in range(300)]
    for each in clients:
        each.sendall(b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
    for each in clients:
        assert read_head(each).startswith(b"HTTP/1.1 200")
    assert len([each for each in threading.enumerate() if each.name == "gaia-proxy"]) == 1
    for each in clients:
        each.sendall(b"?")
    assert {each.recv(1) for each in clients} == {b"!"}
    for each in clients:
        each.close()


def test_a_dial_that_lasts_holds_up_no_other(dialler: Dialler, server: Callable[[Serve], None]) -> None:
    server(echo)
    entered, free = threading.Event(), threading.Event()
    dial = dialler.dial

    def slow(host: str, port: int, *, timeout_s: float) -> socket.socket:
        if host == "slow.test":
            entered.set()
            assert free.wait(WAIT_S)
        return dial(host, port, timeout_s=timeout_s)

    dialler.dial = slow  # type: ignore[method-assign]
    with closing(Proxy(dialler)) as proxy, connect(proxy) as first, connect(proxy) as second:
        first.sendall(b"CONNECT slow.test:443 HTTP/1.1\r\n\r\n")
        assert entered.wait(WAIT_S)
        second.sendall(b"CONNECT fast.test:443 HTTP/1.1\r\n\r\n")
        assert read_head(second).startswith(b"HTTP/1.1 200")
        free.set()
        assert read_head(first).startswith(b"HTTP/1.1 200")


def test_close_ends_every_thread_and_connection(dialler: Dialler, server: Callable[[Serve], None]) -> None:
    server(echo)
    proxy = Proxy(dialler)
    with connect(proxy) as tunnel, connect(proxy) as silent:
        tunnel.sendall(b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
        read_head(tunnel)
        proxy.close()
        proxy.close()
        assert read_to_end(tunnel) == b""
        assert read_to_end(silent) == b""
        assert not [each for each in threading.enumerate() if each.name.startswith("gaia-proxy")]
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)

"""The little server of pages, asked over real sockets."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection

import pytest

from tasks.runtime import pages as module
from tasks.runtime.pages import AT_ONCE, NOT_FOUND, STRANGERS, Asked, Page, Server
from tests.support.cluster import get
from tests.support.waiting import until

Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[Server] = []

    def begin(answer: Callable[[Asked], Page], **options: object) -> Server:
        server = Server("127.0.0.1", 0, answer, **options)  # type: ignore[arg-type]  # a test's shorthand
        server.start()
        servers.append(server)
        return server

    yield begin
    for each in servers:
        each.close()


def said(asked: Asked) -> Page:
    return Page(f"{asked.path} {asked.query}".encode()) if asked.path != "/none" else NOT_FOUND


def url(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def test_it_gives_a_page_by_path_and_query(start: Start) -> None:
    server = start(said)
    assert get(url(server, "/a?x=1&y=%20")) == (200, "/a {'x': '1', 'y': ' '}")
    assert get(url(server, "/none"))[0] == 404


def test_head_gives_the_length_alone(start: Start) -> None:
    connection = HTTPConnection("127.0.0.1", start(said).port, timeout=10)
    connection.request("HEAD", "/a")
    reply = connection.getresponse()
    assert (reply.status, reply.headers["Content-Length"], reply.read()) == (200, "5", b"")
    connection.close()


def test_nothing_can_be_written(start: Start) -> None:
    connection = HTTPConnection("127.0.0.1", start(said).port, timeout=10)
    connection.request("POST", "/a", body=b"x")
    assert connection.getresponse().status == 501
    connection.close()


def test_a_foreign_name_is_refused_without_a_token(start: Start) -> None:
    server = start(said)
    assert get(url(server, "/a"), Host="rebound.example")[0] == 403
    assert get(url(server, "/a"), Host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer wrong", "Basic right-token-right", "Bearer right-token-righ", "bearer é"]
)
def test_a_token_is_asked_for_but_not_of_probes(start: Start, given: str) -> None:
    server = start(said, token="right-token-right", open_to_all={"/probe"})
    status, text = get(url(server, "/a"), Authorization=given.encode().decode("latin-1"))
    assert (status, text) == (401, "a bearer token is needed\n")
    assert get(url(server, "/probe"), Host="10.0.0.7")[0] == 200
    assert get(url(server, "/a"), Authorization="Bearer right-token-right", Host="gaia.example")[0] == 200


def test_a_page_that_fails_says_nothing_of_why(start: Start) -> None:
    def fail(asked: Asked) -> Page:
        raise RuntimeError("token=hunter22")

    status, text = get(url(start(fail), "/a"))
    assert status == 500
    assert "hunter22" not in text


def connect(server: Server, begins: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    sock.sendall(begins)
    return sock


def ended(sock: socket.socket) -> bool:
    """Say whether the server has closed a connection; of what it sends a little is read."""
    sock.settimeout(0.01)
    try:
        return sock.recv(1 << 20) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("begins", [b"", b"GET /a HTTP/1.0\r\nHost: 127", b"GET /large HTTP/1.0\r\n\r\n"])
def test_no_number_of_slow_strangers_keeps_anybody_out(
    start: Start, monkeypatch: pytest.MonkeyPatch, begins: bytes
) -> None:
    monkeypatch.setattr(module, "STRANGER_S", 600.0)
    large = Page(b"x" * 8_000_000)
    token = "right-token-right"
    server = start(
        lambda asked: large if asked.path == "/large" else said(asked), token=token, open_to_all={"/probe", "/large"}
    )
    with ExitStack() as clients:
        slow = [clients.enter_context(closing(connect(server, begins))) for _ in range(2 * STRANGERS)]
        for _ in range(8):
            assert get(url(server, "/probe"))[0] == 200
            assert get(url(server, "/a"), Authorization=f"Bearer {token}")[0] == 200
        assert all(until(lambda each=each: ended(each)) for each in slow[:STRANGERS])  # type: ignore[misc]


def test_a_head_has_one_time_however_slowly_it_drips(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRANGER_S", 0.3)
    with closing(connect(start(said), b"GET /a HTTP/1.0\r\nX: ")) as sock:

        def dripped() -> bool:
            sock.sendall(b"x")
            return ended(sock)

        with suppress(OSError):
            assert until(dripped)


def test_a_head_without_bound_is_not_read(start: Start) -> None:
    with closing(connect(start(said), b"GET /a HTTP/1.0\r\n")) as sock:
        with suppress(OSError):
            for _ in range(99):
                sock.sendall(b"X: " + b"x" * 60_000 + b"\r\n")
            sock.sendall(b"\r\n")
        with suppress(ConnectionError):
            assert sock.recv(1) == b""


def test_who_takes_an_answer_slowly_gives_its_place_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SENDING_S", 0.3)
    server = start(lambda asked: Page(b"x" * 20_000_000) if asked.path == "/large" else said(asked), at_once=1)
    with closing(connect(server, b"GET /large HTTP/1.0\r\nHost: localhost\r\n\r\n")) as sock:
        assert sock.recv(1)
        until(lambda: not ended(sock) and answers(url(server, "/a")))


def test_answers_have_places_and_whoever_finds_none_is_told_but_probes_need_none(start: Start) -> None:
    begun, release = threading.Semaphore(0), threading.Event()

    def hold(asked: Asked) -> Page:
        if asked.path == "/hold":
            begun.release()
            release.wait(60)
        return said(asked)

    server = start(hold, open_to_all={"/probe"})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            found = [pool.submit(get, url(server, "/hold")) for _ in range(AT_ONCE)]
            for _ in found:
                assert begun.acquire(timeout=20)
            assert get(url(server, "/a")) == (503, "too many requests at once\n")
            assert get(url(server, "/probe"))[0] == 200
        finally:
            release.set()
        assert {each.result()[0] for each in found} == {200}
    assert until(lambda: answers(url(server, "/a")))


def test_no_page_is_taken_for_what_it_is_not(start: Start) -> None:
    server = start(said)
    for method, path in (("GET", "/a"), ("GET", "/none"), ("POST", "/a")):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request(method, path)
        assert connection.getresponse().headers["X-Content-Type-Options"] == "nosniff"
        connection.close()


def test_another_loopback_address_is_a_name_of_this_machine() -> None:
    server = Server("127.0.0.2", 0, said)
    server.start()
    with closing(server):
        address = f"http://127.0.0.2:{server.port}/a"
        assert get(address)[0] == 200
        assert get(address, Host="127.0.0.3")[0] == 403


def answers(address: str) -> bool:
    try:
        return get(address)[0] == 200
    except OSError:
        return False


def test_a_taken_port_is_an_error(start: Start) -> None:
    with pytest.raises(OSError, match="in use"):
        Server("127.0.0.1", start(said).port, said)


def test_a_closed_server_gives_its_port_back(start: Start) -> None:
    server = start(said)
    server.close()
    Server("127.0.0.1", server.port, said).close()

"""The little server of pages, asked over real sockets."""

import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection

import pytest

from tasks.runtime.pages import AT_ONCE, NOT_FOUND, Asked, Page, Server
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


def test_silent_clients_keep_only_their_places(start: Start) -> None:
    server = start(said)
    clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(AT_ONCE + 2)]
    refused = [each for each in clients[AT_ONCE:] if until(lambda each=each: each.recv(1) == b"")]  # type: ignore[misc]
    assert len(refused) == 2
    for each in clients:
        each.close()
    assert until(lambda: answers(url(server, "/a")))


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

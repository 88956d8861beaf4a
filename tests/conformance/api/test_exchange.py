"""What is sent, and what becomes of the answer."""

import gzip
import json
import socket
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from config.settings import Api
from gaia.contracts import api
from gaia.errors import BadReply, BodyTooLarge, ConnectFailed, EgressDenied, InvalidCall, NameNotFound
from tasks.scope import Scope
from tests.support.requests import ONCE, Make, Maker, Sends, send
from tests.support.waiting import until
from tests.support.web import Asked, Site, reply


def test_an_answer_comes_whole(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply(b'{"n": 1}', 201, "Content-Type: application/json", "X-Two: 1", "x-two: 2")
    scope = Scope(id="x", operation="api.request", ends_at=Scope.lasting(30).ends_at)
    found = make_service(site).request(api.Request(url=site.url("/a"), retry=ONCE), scope)
    assert (found.status, found.json(), found.url) == (201, {"n": 1}, site.url("/a"))
    assert found.headers == {"content-length": "8", "content-type": "application/json", "x-two": "1, 2"}
    assert found.elapsed_s > 0


def test_cookies_are_joined_by_line_feeds(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply(b"", 200, "Set-Cookie: a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT", "Set-Cookie: b=2")
    found = send(make_service(site), site.url("/a"))
    assert found.headers["set-cookie"] == "a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT\nb=2"


def test_any_status_is_an_answer(make_service: Make, site: Site) -> None:
    service = make_service(site)
    for status in (204, 304, 404, 418, 500, 503, 999):
        site.routes["/a"] = reply(b"", status)
        assert send(service, site.url("/a")).status == status
    assert site.connections == 1


def test_parameters_join_those_of_the_url(make_service: Make, site: Site) -> None:
    site.routes["/a b"] = reply()
    send(make_service(site), site.url("/p%20q?x=1#part"), params={"y": "ü&", "z": "1 2"})
    assert site.asked[0].target == "/p%20q?x=1&y=%C3%BC%26&z=1+2"


def test_each_kind_of_body_has_its_type(make_service: Make, site: Site) -> None:
    service, site.routes["/a"] = make_service(site), reply()
    send(service, site.url("/a"), method="POST", json={"a": [1, None]})
    send(service, site.url("/a"), method="PUT", data={"a": "1 2", "b": "ü"})
    send(service, site.url("/a"), method="PATCH", body=b"\x00\xff")
    send(service, site.url("/a"), method="POST")
    kinds = [each.headers.get("content-type") for each in site.asked]
    assert kinds == ["application/json", "application/x-www-form-urlencoded", None, None]
    assert json.loads(site.asked[0].body) == {"a": [1, None]}
    assert [each.body for each in site.asked[1:]] == [b"a=1+2&b=%C3%BC", b"\x00\xff", b""]
    assert site.asked[3].headers["content-length"] == "0"


def test_every_method_is_sent_as_it_is(make_service: Make, site: Site) -> None:
    service, site.routes["/a"] = make_service(site), reply()
    for method in sorted(api.METHODS - {"HEAD"}):
        send(service, site.url("/a"), method=method)
    assert [each.method for each in site.asked] == sorted(api.METHODS - {"HEAD"})


def test_a_head_answer_has_no_body_and_keeps_the_connection(make_service: Make, site: Site) -> None:
    site.routes["/a"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    site.routes["/b"] = reply(b"b")
    service = make_service(site)
    assert send(service, site.url("/a"), method="HEAD").body == b""
    assert send(service, site.url("/b")).body == b"b"
    assert site.connections == 1


def test_headers_have_defaults_that_a_call_replaces(make_service: Make, site: Site) -> None:
    service, site.routes["/a"] = make_service(site, settings=Api(user_agent="mine/1")), reply()
    send(service, site.url("/a"))
    send(service, site.url("/a"), headers={"user-agent": "yours/2", "ACCEPT": "text/plain", "host": "virtual.test"})
    first, second = (each.headers for each in site.asked)
    assert (first["user-agent"], first["accept"], first["host"]) == ("mine/1", "*/*", f"127.0.0.1:{site.port}")
    assert (second["user-agent"], second["accept"], second["host"]) == ("yours/2", "text/plain", "virtual.test")


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "UPGRADE"])
def test_framing_is_ours_alone(make_service: Make, site: Site, name: str) -> None:
    with pytest.raises(InvalidCall, match="headers"):
        send(make_service(site), site.url("/a"), headers={name: "5"}, method="POST", body=b"x")
    assert site.asked == []


@pytest.mark.parametrize("headers", [{"X-A": "a\r\nX-B: b"}, {"X-A\r\nX-B": "b"}, {"X-A": "a\nb"}, {"X A": "b"}])
def test_a_header_cannot_bring_another_one(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidCall, match="headers"):
        api.Request(url="http://127.0.0.1/", headers=headers)


@pytest.mark.parametrize("value", ["\u4e2d", " a", "\t"])
def test_a_header_that_cannot_be_sent_is_refused_by_name_only(make_service: Make, site: Site, value: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        send(make_service(site), site.url("/a"), headers={"X-Secret": value})
    assert caught.value.field == "headers"
    assert value not in caught.value.reason.replace(" a ", "")


@pytest.mark.parametrize("path", ["/a%0d%0aX-B:%20b", "/a?x=%0d%0aX-B:b"])
def test_a_url_cannot_bring_a_header(make_service: Make, site: Site, path: str) -> None:
    send(make_service(site), site.url(path))
    assert "x-b" not in site.asked[0].headers
    with pytest.raises(InvalidCall):
        api.Request(url=site.url("/a\r\nX-B: b"))


@pytest.mark.parametrize("host", ["bad..name", "-x.test", "a_b:c", "*.test", "[::1", "1.2.3.4.5", "\u200b"])
def test_a_host_that_is_none_is_refused(make_service: Make, host: str) -> None:
    with pytest.raises((InvalidCall, NameNotFound)):
        send(make_service(), f"http://{host}/")


def test_user_info_becomes_authorization_and_shows_nowhere(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply()
    found = send(make_service(site), site.url("/a").replace("://", "://us%40er:p%3Ass@"))
    headers = site.asked[0].headers
    assert (headers["authorization"], headers["host"]) == ("Basic dXNAZXI6cDpzcw==", f"127.0.0.1:{site.port}")
    assert found.url == site.url("/a")


def test_the_auth_field_goes_before_user_info(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply()
    send(make_service(site), site.url("/a").replace("://", "://x:y@"), auth=("\u00fcser", "p"))
    assert site.asked[0].headers["authorization"] == "Basic w7xzZXI6cA=="


def test_no_error_tells_the_user_info(make_service: Make) -> None:
    with pytest.raises(EgressDenied) as caught:
        send(make_service(), "http://user:geheim@10.0.0.1/")
    assert caught.value.args == ("10.0.0.1", "10.0.0.1", "private")


def test_proxies_of_the_environment_are_not_used(
    make_service: Make, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    site.routes["/a"] = reply(b"direct")
    assert send(make_service(site), site.url("/a")).body == b"direct"


# --- connections


def test_a_connection_serves_one_call_after_another(make_service: Make, site: Site) -> None:
    service, site.routes["/a"] = make_service(site), reply(b"x" * 1000)
    site.routes["/chunks"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    for path in ("/a", "/chunks", "/a", "/chunks"):
        send(service, site.url(path))
    assert (site.connections, len(site.asked)) == (1, 4)


def test_a_connection_that_the_server_closed_is_not_used_again(make_service: Make, site: Site) -> None:
    service = make_service(site)
    site.routes["/a"] = reply(b"", 200, "Connection: close")
    send(service, site.url("/a"))
    site.routes["/a"] = reply()
    send(service, site.url("/a"))
    assert site.connections == 2
    site.hang_up()
    until(lambda: not site._open, what="the hang-up")
    send(service, site.url("/a"), method="POST")
    assert site.connections == 3


def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one(make_service: Make, site: Site) -> None:
    service = make_service(site)
    site.routes["/a"] = reply(b"mine") + reply(b"poison")
    site.routes["/b"] = reply(b"right")
    assert send(service, site.url("/a")).body == b"mine"
    assert send(service, site.url("/b")).body == b"right"


def test_many_threads_share_the_service(make_service: Make, site: Site) -> None:
    service = make_service(site)
    site.routes["/a"] = lambda asked, _: reply(asked.target.encode())
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda n: send(service, site.url(f"/a?{n}")).body, range(80))
        assert list(found) == [f"/a?{n}".encode() for n in range(80)]
    assert site.connections <= 8


def test_no_more_idle_connections_are_kept_than_settings_say(site: Site, other: Site) -> None:
    with ExitStack() as stack:
        keep_one(Maker(stack).service(site, other, settings=Api(pool_connections=1)), site, other)


def keep_one(service: Sends, site: Site, other: Site) -> None:
    site.routes["/a"] = other.routes["/a"] = reply()
    for each in (site, other, other, site):
        send(service, each.url("/a"))
    assert (site.connections, other.connections) == (2, 1)


def test_closing_closes_idle_connections_and_may_be_done_twice(make_service: Make, site: Site) -> None:
    service, site.routes["/a"] = make_service(site), reply()
    send(service, site.url("/a"))
    service.close()
    service.close()
    until(lambda: not site._open, what="the end of the connection")


# --- bodies


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 200_000])
def test_a_body_of_just_the_allowed_size_is_read(make_service: Make, site: Site, size: int) -> None:
    site.routes["/a"] = reply(b"x" * size)
    service = make_service(site)
    assert len(send(service, site.url("/a"), max_body_bytes=size).body) == size
    if size:
        with pytest.raises(BodyTooLarge) as caught:
            send(service, site.url("/a"), max_body_bytes=size - 1)
        assert caught.value.args == ("127.0.0.1", size - 1)


def test_an_endless_body_is_stopped_at_the_cap(make_service: Make, site: Site) -> None:
    def endless(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not site.stopped.is_set():
            sock.sendall(b"x" * 65536)

    site.routes["/a"] = endless
    with pytest.raises(BodyTooLarge):
        send(make_service(site), site.url("/a"), max_body_bytes=1_000_000)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_packed_body_is_unpacked(
    make_service: Make, site: Site, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    body = b"much text " * 30_000
    site.routes["/a"] = reply(pack(body), 200, f"Content-Encoding: {encoding}")
    service = make_service(site)
    assert send(service, site.url("/a")).body == body
    assert send(service, site.url("/a")).body == body
    assert site.connections == 1


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_bomb_is_stopped_at_the_cap(make_service: Make, site: Site, layers: int) -> None:
    body = b"\0" * 50_000_000
    for _ in range(layers):
        body = gzip.compress(body)
    encodings = ", ".join(["gzip"] * layers)
    site.routes["/a"] = reply(body, 200, f"Content-Encoding: {encodings}")
    with pytest.raises(BodyTooLarge):
        send(make_service(site), site.url("/a"), max_body_bytes=100_000)


def test_a_body_that_is_not_what_it_says_is_a_bad_reply(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply(b"this is no gzip", 200, "Content-Encoding: gzip")
    with pytest.raises(BadReply, match="encoding"):
        send(make_service(site), site.url("/a"))


# --- broken servers


@pytest.mark.parametrize(
    "answer",
    [
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + reply(b"late"),
    ],
)
def test_what_is_no_proper_http_is_a_bad_reply_and_the_connection_is_dropped(
    make_service: Make, site: Site, answer: bytes
) -> None:
    service = make_service(site)
    site.routes["/a"], site.routes["/b"] = answer, reply(b"fine")
    with pytest.raises(BadReply) as caught:
        send(service, site.url("/a"))
    assert caught.value.host == "127.0.0.1"
    assert send(service, site.url("/b")).body == b"fine"
    assert site.connections == 2


def test_a_server_that_says_continue_first_is_heard_out(make_service: Make, site: Site) -> None:
    site.routes["/a"] = b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"then")
    assert send(make_service(site), site.url("/a"), method="POST", body=b"x").body == b"then"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
    ],
)
def test_an_answer_that_breaks_off_is_a_failed_connection(make_service: Make, site: Site, answer: bytes) -> None:
    def partly(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(answer)

    site.routes["/a"] = partly
    with pytest.raises(ConnectFailed):
        send(make_service(site), site.url("/a"))


def test_an_answer_before_the_whole_body_was_sent_is_heard(make_service: Make, site: Site) -> None:
    def early(asked: Asked, sock: socket.socket) -> bytes:
        return reply(b"too long", 413)

    site.routes["/a"] = early
    found = send(make_service(site), site.url("/a"), method="POST", body=b"x" * 3_000_000)
    assert (found.status, found.body) == (413, b"too long")


def test_a_port_where_nobody_listens_is_a_failed_connection(make_service: Make) -> None:
    with Site() as gone:
        service, url = make_service(gone), gone.url()
    with pytest.raises(ConnectFailed, match="refused"):
        send(service, url)


def test_a_denied_address_is_never_dialled(make_service: Make, site: Site, other: Site) -> None:
    with pytest.raises(EgressDenied):
        send(make_service(other), site.url("/a"))
    assert site.connections == 0

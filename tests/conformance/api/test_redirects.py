"""Redirects: each hop judged, credentials kept at home."""

import pytest

from gaia.contracts import api
from gaia.errors import BadReply, EgressDenied, TooManyRedirects
from tests.support.requests import Make, send
from tests.support.web import Site, reply


def to(location: str, status: int = 302, *fields: str) -> bytes:
    return reply(b"moved", status, f"Location: {location}", *fields)


def test_a_chain_is_followed_to_its_end_on_one_connection(make_service: Make, site: Site) -> None:
    site.routes |= {"/a": to("/b"), "/b": to(site.url("/c?x=1")), "/c": to("d"), "/d": reply(b"end")}
    found = send(make_service(site), site.url("/a"), params={"q": "1"})
    assert (found.body, found.url) == (b"end", site.url("/d"))
    assert [each.target for each in site.asked] == ["/a?q=1", "/b", "/c?x=1", "/d"]
    assert site.connections == 1


@pytest.mark.parametrize(
    ("status", "method", "following"),
    [
        *(
            (301, "POST", "GET"),
            (302, "POST", "GET"),
            (303, "POST", "GET"),
            (303, "PUT", "GET"),
            (303, "DELETE", "GET"),
        ),
        *((307, "POST", "POST"), (308, "POST", "POST"), (301, "PUT", "PUT"), (302, "PATCH", "PATCH")),
        *((303, "HEAD", "HEAD"), (301, "HEAD", "HEAD"), (302, "GET", "GET")),
    ],
)
def test_the_method_follows_rfc_9110(make_service: Make, site: Site, status: int, method: str, following: str) -> None:
    site.routes |= {"/a": to("/b", status).replace(b"5\r", b"0\r").replace(b"moved", b""), "/b": reply()}
    json = None if method in {"GET", "HEAD"} else {"a": 1}
    send(make_service(site), site.url("/a"), method=method, json=json)
    second = site.asked[1]
    assert second.method == following
    kept = following == method and json is not None
    assert (second.body, second.headers.get("content-type")) == (
        (b'{"a": 1}', "application/json") if kept else (b"", None)
    )


def test_a_redirect_without_a_location_is_an_answer(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply(b"look for it", 302)
    assert send(make_service(site), site.url("/a")).status == 302


def test_a_location_on_another_status_is_no_redirect(make_service: Make, site: Site) -> None:
    site.routes["/a"] = to("/b", 201)
    assert send(make_service(site), site.url("/a"), method="POST").status == 201


def test_a_loop_ends_at_the_limit(make_service: Make, site: Site) -> None:
    site.routes["/a"] = to("/a")
    with pytest.raises(TooManyRedirects) as caught:
        send(make_service(site), site.url("/a"), max_redirects=3)
    assert caught.value.args == ("127.0.0.1", 3)
    assert len(site.asked) == 4


def test_just_as_many_as_allowed_are_followed(make_service: Make, site: Site) -> None:
    site.routes |= {"/a": to("/b"), "/b": to("/c"), "/c": reply(b"end")}
    assert send(make_service(site), site.url("/a"), max_redirects=2).body == b"end"


def test_with_no_redirects_allowed_the_redirect_is_the_answer(make_service: Make, site: Site) -> None:
    site.routes["/a"] = to("/b")
    found = send(make_service(site), site.url("/a"), max_redirects=0)
    assert (found.status, found.headers["location"], found.body) == (302, "/b", b"moved")


def test_a_redirects_own_body_does_not_count(make_service: Make, site: Site) -> None:
    site.routes |= {"/a": reply(b"x" * 200_000, 302, "Location: /b"), "/b": reply(b"end")}
    assert send(make_service(site), site.url("/a"), max_body_bytes=3).body == b"end"
    assert site.connections == 2


SECRETS = {"Authorization": "Bearer abc", "Cookie": "a=1", "X-Api-Key": "k", "X-Auth-Token": "t", "Accept": "text/x"}


def test_credentials_stay_with_their_origin(make_service: Make, site: Site, other: Site) -> None:
    site.routes |= {"/a": to("/b"), "/b": to(other.url("/c"))}
    other.routes["/c"] = to(site.url("/d"))
    send(make_service(site, other), site.url("/a"), headers=SECRETS | {"Host": "virtual.test"})
    assert SECRETS.items() <= {name.title(): value for name, value in site.asked[1].headers.items()}.items()
    for away in (other.asked[0].headers, site.asked[2].headers):
        assert not {"authorization", "cookie", "x-api-key", "x-auth-token"} & set(away)
        assert away["accept"] == "text/x"
        assert away["host"] != "virtual.test"


def test_basic_authorization_stays_with_its_origin(make_service: Make, site: Site, other: Site) -> None:
    site.routes["/a"] = to(other.url("/c"))
    send(make_service(site, other), site.url("/a"), auth=("u", "p"))
    assert "authorization" in site.asked[0].headers
    assert "authorization" not in other.asked[0].headers


def test_user_info_in_a_location_is_dropped(make_service: Make, site: Site) -> None:
    site.routes |= {"/a": to(site.url("/b").replace("://", "://u:p@")), "/b": reply()}
    found = send(make_service(site), site.url("/a"))
    assert "authorization" not in site.asked[1].headers
    assert found.url == site.url("/b")


def test_cookies_set_on_the_way_are_sent_on_and_then_forgotten(make_service: Make, site: Site) -> None:
    site.routes |= {"/a": to("/b", 302, "Set-Cookie: s=1; Path=/"), "/b": reply()}
    service = make_service(site)
    send(service, site.url("/a"), headers={"Cookie": "own=2"})
    send(service, site.url("/b"))
    assert [each.headers.get("cookie") for each in site.asked] == ["own=2", "own=2; s=1", None]


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1:1/", "http://10.0.0.1/", "http://169.254.169.254/latest/", "//[::1]/", "http://0x7f.1:1/"),
        *("https://localhost:1/", "http://2130706433:1/", "http://[::ffff:127.0.0.1]:1/", "http://u:p@127.0.0.1:1/"),
    ],
)
def test_a_redirect_to_a_denied_address_is_refused(make_service: Make, site: Site, location: str) -> None:
    site.routes["/a"] = to(location)
    with pytest.raises(EgressDenied):
        send(make_service(site), site.url("/a"))


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:6379/_PING", "javascript:alert(1)", "data:,x"),
        *(
            "http://:80/",
            "http://[::1",
            "http://a:b:c/",
            "http://h:99999/",
            "httpx://127.0.0.1/",
            "unix:/run/x",
        ),
    ],
)
def test_a_redirect_to_no_http_url_is_a_bad_reply(make_service: Make, site: Site, location: str) -> None:
    site.routes["/a"] = to(location)
    with pytest.raises(BadReply, match="redirects"):
        send(make_service(site), site.url("/a"))


def test_a_location_with_raw_bytes_is_read_as_utf_8(make_service: Make, site: Site) -> None:
    location = "Location: /b\u00fc x".encode()
    site.routes["/a"] = b"HTTP/1.1 302 Said\r\nContent-Length: 0\r\n" + location + b"\r\n\r\n"
    assert send(make_service(site), site.url("/a")).status == 404
    assert site.asked[1].target == "/b%C3%BC%20x"


def test_the_call_itself_takes_http_only() -> None:
    for url in ("file:///etc/passwd", "ftp://h/", "gopher://h/", "http://"):
        with pytest.raises(Exception, match="url"):
            api.Request(url=url)

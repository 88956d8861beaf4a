"""No spelling of an inner address, no redirect and no name server leads either engine to what it may not reach."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote

import pytest

from gaia.errors import BadReply, EgressDenied, GaiaError, InvalidCall, NameNotFound
from tests.support.dns import NameServer
from tests.support.requests import Make, send
from tests.support.spellings import SPELLINGS
from tests.support.web import Site, reply

REFUSED = (EgressDenied, InvalidCall, NameNotFound, BadReply)
"""What a form may end in; nothing else is a refusal."""

IN_URLS = [
    "http://{}:{port}/",
    "http://user:password@{}:{port}/",
    "http://public.example@{}:{port}/",
]
TRICKS = [
    "http://public.example#@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@public.example/",
    "http://127.0.0.1:{port}\\@public.example/",
    "http://public.example\\@127.0.0.1:{port}/",
    "http://127.0.0.1%2f@public.example:{port}/",
    "http://127.0.0.1%00.public.example:{port}/",
    "http://127.0.0.1%09:{port}/",
    "http://127.0.0.1%20:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1;public.example:{port}/",
    "http://127.0.0.1,public.example:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[v1.127.0.0.1]:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://0:{port}/",
    "http://127.0.0.1.:{port}/",
    "//127.0.0.1:{port}/",
    "///127.0.0.1:{port}/",
    "\\\\127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http://127.0.0.1:0{port}/",
]


@pytest.fixture
def trap() -> Iterator[Site]:
    """Listen on loopback, where nothing may be dialled."""
    with Site() as server:
        server.routes["/"] = reply(b"secret")
        yield server


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


def literal(spelling: str) -> str:
    """Put a bare IPv6 address into brackets, as a URL has it."""
    return f"[{spelling}]" if ":" in spelling and not spelling.startswith("[") else spelling


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_an_inner_address_is_dialled(make_service: Make, trap: Site, spelling: str) -> None:
    service = make_service()
    for form in IN_URLS:
        with pytest.raises(REFUSED):
            send(service, form.format(literal(spelling), port=trap.port))
    assert trap.connections == 0


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_redirect_to_one_is_followed(make_service: Make, site: Site, trap: Site, spelling: str) -> None:
    service = make_service(site)
    for form in IN_URLS:
        # As bytes of UTF-8, which is how servers send what is not ASCII.
        location = form.format(literal(spelling), port=trap.port).encode().decode("latin-1")
        site.routes["/a"] = reply(b"", 302, f"Location: {location}")
        with pytest.raises(REFUSED):
            send(service, site.url("/a"))
    assert trap.connections == 0


@pytest.mark.parametrize("trick", TRICKS)
def test_no_url_that_readers_read_differently_reaches_it(make_service: Make, trap: Site, trick: str) -> None:
    with pytest.raises(REFUSED):
        send(make_service(), trick.format(port=trap.port))
    assert trap.connections == 0


@pytest.mark.parametrize("trick", TRICKS)
def test_no_such_location_reaches_it(make_service: Make, site: Site, trap: Site, trick: str) -> None:
    site.routes["/a"] = reply(b"", 302, f"Location: {trick.format(port=trap.port)}")
    service = make_service(site)
    with suppress(*REFUSED):
        send(service, site.url("/a"))  # read as a path of the same site it is harmless
    assert trap.connections == 0


@pytest.mark.parametrize(
    "record",
    [
        *("inner.test. 60 IN A 127.0.0.1", "inner.test. 60 IN A 169.254.169.254", "inner.test. 60 IN AAAA ::1"),
        *("inner.test. 60 IN AAAA ::ffff:127.0.0.1", "inner.test. 60 IN AAAA 64:ff9b::7f00:1"),
        *("inner.test. 60 IN CNAME localhost.", "inner.test. 60 IN A 0.0.0.0"),
    ],
)
def test_no_name_that_leads_inside_is_dialled(
    make_service: Make, site: Site, trap: Site, name_server: NameServer, record: str
) -> None:
    name_server.add(record, "localhost. 60 IN A 127.0.0.1")
    service = make_service(site, nameserver=name_server.address)
    site.routes["/a"] = reply(b"", 307, f"Location: http://inner.test:{trap.port}/")
    for url in (f"http://inner.test:{trap.port}/", site.url("/a")):
        with pytest.raises(REFUSED):
            send(service, url)
    assert trap.connections == 0


def test_a_name_that_changes_its_mind_is_refused_at_the_next_look_up(
    make_service: Make, site: Site, name_server: NameServer
) -> None:
    service = make_service(site, nameserver=name_server.address)
    site.routes["/"] = reply(b"fine", 200, "Connection: close")
    name_server.add("shop.test. 0 IN A 127.0.0.1")
    name_server.later["shop.test.", "A"] = ["shop.test. 0 IN A 127.0.0.2"]
    url = f"http://shop.test:{site.port}/"
    with socket.create_server(("127.0.0.2", site.port)) as trap:
        assert send(service, url).body == b"fine"
        with pytest.raises(EgressDenied) as caught:
            send(service, url)
        assert caught.value.args == ("shop.test", "127.0.0.2", "loopback")
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_a_name_that_changes_its_mind_between_the_hops_of_a_redirect_is_refused(
    make_service: Make, site: Site, other: Site, name_server: NameServer
) -> None:
    service = make_service(site, other, nameserver=name_server.address)
    name_server.add("shop.test. 0 IN A 127.0.0.1")
    name_server.later["shop.test.", "A"] = ["shop.test. 0 IN A 10.0.0.1"]
    site.routes["/"] = reply(b"", 302, f"Location: http://shop.test:{other.port}/b")
    with pytest.raises(EgressDenied):
        send(service, f"http://shop.test:{site.port}/")
    assert other.connections == 0


def test_an_answer_with_a_good_and_a_bad_address_is_refused_as_a_whole(
    make_service: Make, site: Site, name_server: NameServer
) -> None:
    name_server.add("mixed.test. 60 IN A 127.0.0.1", "mixed.test. 60 IN A 10.0.0.1")
    with pytest.raises(EgressDenied):
        send(make_service(site, nameserver=name_server.address), f"http://mixed.test:{site.port}/")
    assert site.connections == 0


def test_no_refusal_tells_the_password_of_its_url(make_service: Make) -> None:
    for form in (*SPELLINGS, quote("127.0.0.1")):
        with pytest.raises(GaiaError) as caught:
            send(make_service(), f"http://user:geheimnis@{literal(form)}/?token=geheimnis")
        assert "geheimnis" not in repr(caught.value)
        assert "geheimnis" not in str(caught.value)


def test_there_are_more_than_thirty_forms() -> None:
    assert len(SPELLINGS) + len(TRICKS) > 60

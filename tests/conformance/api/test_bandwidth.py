"""Bandwidth bounds the bodies of both engines, and holds nobody for ever."""

import time

import pytest

from gaia.errors import TimedOut
from gaia.store.limits import Limit
from tests.support.requests import Make, limits, send
from tests.support.web import Site, reply


@pytest.mark.parametrize("name", ["127.0.0.1", "global", "key:acme"])
def test_a_body_takes_as_long_as_the_bandwidth_of_each_level_says(make_service: Make, site: Site, name: str) -> None:
    site.routes["/a"] = reply(b"x" * 100_000)
    limited = limits(**{name: Limit(bytes_per_s=250_000.0, burst_bytes=25_000)})
    started = time.monotonic()
    assert len(send(make_service(site, limited=limited), site.url("/a"), tenant="acme").body) == 100_000
    assert time.monotonic() - started >= 0.2


def test_a_narrow_band_lets_a_body_through_in_small_parts(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply(b"x" * 3000)
    limited = limits(**{"127.0.0.1": Limit(bytes_per_s=10_000.0)})
    assert send(make_service(site, limited=limited), site.url("/a")).body == b"x" * 3000


def test_a_wide_band_changes_nothing(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply(b"x" * 1_000_000)
    site.routes["/b"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    limited = limits(**{"127.0.0.1": Limit(bytes_per_s=1e10)})
    service = make_service(site, limited=limited)
    for _ in range(3):
        assert len(send(service, site.url("/a")).body) == 1_000_000
        assert send(service, site.url("/b")).body == b"abc"
    assert site.connections == 1


def test_a_shadow_lets_everything_through(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply(b"x" * 100_000)
    limited = limits(**{"127.0.0.1": Limit(bytes_per_s=1.0, shadow=True)})
    assert len(send(make_service(site, limited=limited), site.url("/a")).body) == 100_000


def test_a_body_that_does_not_get_its_bandwidth_ends_with_its_time(make_service: Make, site: Site) -> None:
    site.routes["/a"] = reply(b"x" * 100_000)
    limited = limits(**{"127.0.0.1": Limit(bytes_per_s=1000.0)})
    with pytest.raises(TimedOut):
        send(make_service(site, limited=limited), site.url("/a"), timeout_s=0.5)

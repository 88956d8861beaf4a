"""Downloads: whole, in parts after a break, and never the wrong thing."""

import hashlib
import socket
from collections.abc import Callable

import pytest
import redis

from gaia.contracts import api
from gaia.errors import (
    BadReply,
    BadStatus,
    BodyTooLarge,
    Cancelled,
    ChecksumMismatch,
    ConnectFailed,
    InvalidCall,
    ServerBusy,
)
from gaia.store.artifacts import Artifacts, RedisArtifacts
from gaia.store.limits import Limit
from tasks.api.service import ApiService
from tasks.scope import Scope
from tests.support.requests import Maker, limits
from tests.support.web import Asked, Site, reply

BODY = bytes(range(256)) * 2000
QUICK = api.Retry(attempts=4, base_s=0.001)

Make = Callable[..., tuple[ApiService, Artifacts]]


@pytest.fixture
def make(maker: Maker, site: Site, fresh_url: str) -> Make:
    def make(**options: object) -> tuple[ApiService, Artifacts]:
        store = Artifacts(RedisArtifacts(redis.Redis.from_url(fresh_url)))
        return maker.service(site, artifacts=store, **options), store  # type: ignore[arg-type]  # of the service

    return make


def breaking(after: int, *fields: str, honours: bool = True) -> Callable[[Asked, socket.socket], bytes | None]:
    """Send `after` bytes a time, and serve ranges of the rest."""

    def route(asked: Asked, sock: socket.socket) -> bytes | None:
        start = 0
        if honours and asked.headers.get("if-range") == '"v1"':
            start = int(asked.headers["range"].removeprefix("bytes=").removesuffix("-"))
        rest = BODY[start:]
        lines = ["HTTP/1.1 206 Part" if start else "HTTP/1.1 200 OK", f"Content-Length: {len(rest)}", *fields]
        if start:
            lines.append(f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + rest[:after])
        return None if after < len(rest) else b""

    return route


def test_a_body_is_stored_with_its_checksum_and_progress(make: Make, site: Site) -> None:
    site.routes |= {"/a": reply(b"", 302, "Location: /b"), "/b": reply(BODY, 200, "X-A: 1")}
    service, store = make()
    told: list[tuple[float, float | None]] = []
    scope = Scope.lasting(30)
    scope.report = lambda done, total, _: told.append((done, total))
    digest = hashlib.sha256(BODY).hexdigest()
    found = service.download(api.Download(url=site.url("/a"), sha256=digest), scope)
    assert (found.size_bytes, found.sha256, found.status, found.url) == (len(BODY), digest, 200, site.url("/b"))
    assert found.headers["x-a"] == "1"
    assert store.get(found.artifact) == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert {each.headers["accept-encoding"] for each in site.asked} == {"identity"}


def test_a_break_is_taken_up_where_it_was(make: Make, site: Site) -> None:
    site.routes["/a"] = breaking(200_000, 'ETag: "v1"')
    service, store = make()
    found = service.download(api.Download(url=site.url("/a"), retry=QUICK), Scope.lasting(30))
    assert store.get(found.artifact) == BODY
    assert found.resumed == 2
    assert [each.headers.get("range") for each in site.asked] == [None, "bytes=200000-", "bytes=400000-"]


def test_a_body_that_changed_meanwhile_is_not_pieced_together(make: Make, site: Site) -> None:
    site.routes["/a"] = breaking(200_000, 'ETag: "v1"', honours=False)
    service, _ = make()
    with pytest.raises(ConnectFailed, match="cannot go on"):
        service.download(api.Download(url=site.url("/a"), retry=QUICK), Scope.lasting(30))


def test_without_a_proof_of_sameness_nothing_is_taken_up(make: Make, site: Site) -> None:
    site.routes["/a"] = breaking(200_000, 'ETag: W/"v1"')
    service, _ = make()
    with pytest.raises(ConnectFailed):
        service.download(api.Download(url=site.url("/a"), retry=QUICK), Scope.lasting(30))
    assert len(site.asked) == 1


def test_a_wrong_part_is_a_bad_reply(make: Make, site: Site) -> None:
    first = breaking(200_000, 'ETag: "v1"')

    def wrong(asked: Asked, sock: socket.socket) -> bytes | None:
        if "range" not in asked.headers:
            return first(asked, sock)
        return reply(BODY[5:], 206, f"Content-Range: bytes 5-{len(BODY) - 1}/{len(BODY)}")

    site.routes["/a"] = wrong
    service, _ = make()
    with pytest.raises(BadReply, match="part"):
        service.download(api.Download(url=site.url("/a"), retry=QUICK), Scope.lasting(30))


def test_another_checksum_is_refused_and_nothing_stays(make: Make, site: Site, fresh_url: str) -> None:
    site.routes["/a"] = reply(BODY)
    service, _ = make()
    with pytest.raises(ChecksumMismatch):
        service.download(api.Download(url=site.url("/a"), sha256="0" * 64), Scope.lasting(30))
    assert not list(redis.Redis.from_url(fresh_url).scan_iter("*artifact*"))


@pytest.mark.parametrize("length", [True, False])
def test_more_than_allowed_is_stopped(make: Make, site: Site, length: bool) -> None:
    site.routes["/a"] = reply(BODY) if length else b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY
    service, _ = make()
    with pytest.raises(BodyTooLarge):
        service.download(api.Download(url=site.url("/a"), max_bytes=1000), Scope.lasting(30))


def test_a_status_without_content_is_an_error(make: Make, site: Site) -> None:
    service, _ = make()
    site.routes |= {"/a": reply(b"", 404), "/b": reply(b"", 503)}
    for path, error in (("/a", BadStatus), ("/b", ServerBusy)):
        scope = Scope.lasting(30)
        with pytest.raises(error):
            service.download(api.Download(url=site.url(path)), scope)
        assert scope.retryable == (path == "/b")


def test_a_cancel_ends_it(make: Make, site: Site) -> None:
    def drip(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        scope.cancelled.set()
        site.stopped.wait(20)

    scope = Scope.lasting(30)
    site.routes["/a"] = drip
    service, _ = make()
    with pytest.raises(Cancelled):
        service.download(api.Download(url=site.url("/a")), scope)


def test_bandwidth_is_waited_for(make: Make, site: Site) -> None:
    site.routes["/a"] = reply(BODY)
    limited = limits(**{"127.0.0.1": Limit(bytes_per_s=2_000_000.0, burst_bytes=100_000)})
    service, store = make(limited=limited)
    found = service.download(api.Download(url=site.url("/a")), Scope.lasting(30))
    assert store.get(found.artifact) == BODY
    assert found.elapsed_s >= 0.15


@pytest.mark.parametrize("name", ["Range", "if-range", "Accept-Encoding"])
def test_what_resuming_needs_is_ours_alone(name: str) -> None:
    with pytest.raises(InvalidCall, match="headers"):
        api.Download(url="http://h/", headers={name: "x"})


@pytest.mark.parametrize("digest", ["", "x" * 64, "A" * 64, "0" * 63])
def test_a_checksum_that_is_none_is_refused(digest: str) -> None:
    with pytest.raises(InvalidCall, match="sha256"):
        api.Download(url="http://h/", sha256=digest)


def test_stats_and_health_tell_what_happened(make: Make, site: Site) -> None:
    site.routes |= {"/a": reply(b"abc"), "/b": reply(b"", 500)}
    service, _ = make()
    for path in ("/a", "/b", "/a"):
        service.request(api.Request(url=site.url(path)), Scope.lasting(30))
    found = service.stats(api.Stats(), Scope.lasting())
    assert (found.worker, found.requests, found.succeeded, found.failed) == ("w", 3, 2, 1)
    assert (found.statuses, found.received_bytes, found.active) == ({"200": 2, "500": 1}, 6, 0)
    assert set(found.seconds) == {"p50", "p95", "p99"}
    assert service.health(api.Health(), Scope.lasting()).status in {"healthy", "degraded"}
    service.close()
    assert service.health(api.Health(), Scope.lasting()).status == "unhealthy"

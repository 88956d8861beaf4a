"""Many requests in one call."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.settings import Api
from gaia.contracts import api
from gaia.errors import (
    BodyTooLarge,
    Cancelled,
    ConnectFailed,
    DeadlineExceeded,
    EgressDenied,
    GaiaError,
    InvalidCall,
    LimitExceeded,
    NameNotFound,
    PoolExhausted,
    TimedOut,
)
from gaia.store.limits import Limit
from tasks.api.service import ApiService
from tasks.scope import Scope
from tests.support.requests import ONCE, Maker, limits
from tests.support.waiting import until
from tests.support.web import Asked, Site, reply


def many(service: ApiService, *calls: api.Request, concurrency: int = 100, seconds: float = 30.0) -> list[object]:
    """Send them; give of each the status, or the class of the error."""
    found = service.request_many(api.RequestMany(calls, concurrency), Scope.lasting(seconds))
    return [each.result.status if each.result else type(each.error) for each in found.items]


class Crowd:
    """A route that counts how many are at it at once."""

    def __init__(self, site: Site, pause_s: float) -> None:
        self._site, self._pause_s = site, pause_s
        self._lock, self._now, self.most = threading.Lock(), 0, 0

    def __call__(self, *_: object) -> bytes:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._site.stopped.wait(self._pause_s)
        with self._lock:
            self._now -= 1
        return reply()


def test_outcomes_come_in_the_order_of_the_calls_and_none_fails_another(maker: Maker, site: Site) -> None:
    site.routes["/a"] = lambda asked, _: reply(asked.target.encode())
    with Site() as gone:
        service = maker.service(site, gone)
        dead = gone.url()
    calls = [api.Request(url=site.url(f"/a?{n}"), retry=ONCE) for n in range(50)]
    calls[7] = api.Request(url=dead, retry=ONCE)
    calls[8] = api.Request(url="http://10.0.0.1/", retry=ONCE)
    calls[9] = api.Request(url="http://bad..name/", retry=ONCE)
    calls[10] = api.Request(url=site.url("/a"), headers={"Content-Length": "1"})
    calls[11] = api.Request(url=site.url("/a"), proxy="nobody")
    found = service.request_many(api.RequestMany(tuple(calls)), Scope.lasting(30)).items
    assert [type(each.error) for each in found[7:12]] == [
        ConnectFailed,
        EgressDenied,
        NameNotFound,
        InvalidCall,
        InvalidCall,
    ]
    bodies = [each.unwrap().body for index, each in enumerate(found) if index not in range(7, 12)]
    assert bodies == [f"/a?{n}".encode() for n in range(50) if n not in range(7, 12)]


def test_no_more_are_under_way_than_the_call_says(maker: Maker, site: Site) -> None:
    site.routes["/a"] = crowd = Crowd(site, pause_s=0.02)
    calls = [api.Request(url=site.url("/a"))] * 30
    assert many(maker.service(site), *calls, concurrency=5) == [200] * 30
    assert 1 < crowd.most <= 5


def test_more_than_the_workers_connections_wait_their_turn_or_are_told(maker: Maker, site: Site) -> None:
    def slow(asked: Asked, _: object) -> bytes:
        site.stopped.wait(0.3)
        return reply()

    site.routes["/a"] = slow
    service = maker.service(site, settings=Api(bulk_connections=2, session_wait_s=0.1))
    found = many(service, *[api.Request(url=site.url("/a"), retry=ONCE)] * 4)
    assert sorted(map(str, found)) == sorted(map(str, [200, 200, PoolExhausted, PoolExhausted]))


def test_a_limit_makes_items_wait_and_none_is_lost(maker: Maker, site: Site) -> None:
    site.routes["/a"] = reply()
    service = maker.service(site, limited=limits(**{"127.0.0.1": Limit(rate_per_s=100.0, burst=5)}))
    started = time.monotonic()
    assert many(service, *[api.Request(url=site.url("/a"))] * 25) == [200] * 25
    assert time.monotonic() - started >= 0.15


def test_what_a_limit_still_keeps_out_at_the_deadline_is_told_so(maker: Maker, site: Site) -> None:
    site.routes["/a"] = reply()
    service = maker.service(site, limited=limits(**{"127.0.0.1": Limit(rate_per_s=0.1, burst=1)}))
    assert many(service, *[api.Request(url=site.url("/a"))] * 3, seconds=0.5) == [200, LimitExceeded, LimitExceeded]


def test_slots_of_a_host_bound_the_batch_and_come_back(maker: Maker, site: Site) -> None:
    site.routes["/a"] = crowd = Crowd(site, pause_s=0.01)
    limited = limits(**{"127.0.0.1": Limit(concurrency=3)})
    assert many(maker.service(site, limited=limited), *[api.Request(url=site.url("/a"))] * 20) == [200] * 20
    assert crowd.most <= 3


def test_what_is_under_way_at_the_deadline_is_left(maker: Maker, site: Site) -> None:
    def hold(asked: Asked, _: object) -> None:
        site.stopped.wait(20)

    site.routes["/a"], site.routes["/b"] = hold, reply()
    service = maker.service(site)
    found = many(service, api.Request(url=site.url("/a")), api.Request(url=site.url("/b")), seconds=0.5)
    assert found == [DeadlineExceeded, 200]
    until(lambda: not service.stats(api.Stats(), Scope.lasting()).bulk_active, what="the engine to drop it")


def test_an_item_has_its_own_time(maker: Maker, site: Site) -> None:
    def hold(asked: Asked, _: object) -> None:
        site.stopped.wait(20)

    site.routes["/a"] = hold
    assert many(maker.service(site), api.Request(url=site.url("/a"), timeout_s=0.2, retry=ONCE)) == [TimedOut]


def test_busy_answers_are_tried_again_inside_the_batch(maker: Maker, site: Site) -> None:
    answers = iter([reply(b"", 503), reply(b"", 502), reply(b"", 200)])
    site.routes["/a"] = lambda *_: next(answers)
    quick = api.Retry(base_s=0.001)
    found = maker.service(site).request_many(
        api.RequestMany((api.Request(url=site.url("/a"), retry=quick),)), Scope.lasting(30)
    )
    assert (found.items[0].unwrap().status, found.items[0].unwrap().attempts) == (200, 3)


def test_a_cancel_ends_the_batch_at_once(maker: Maker, site: Site) -> None:
    def hold(asked: Asked, _: object) -> None:
        site.stopped.wait(20)

    site.routes["/a"] = hold
    service, scope = maker.service(site), Scope.lasting(60)
    call = api.RequestMany((api.Request(url=site.url("/a")),) * 5)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(service.request_many, call, scope)
        until(lambda: len(site.asked) == 5, what="the requests")
        scope.cancelled.set()
        assert isinstance(running.exception(10), Cancelled)


def test_bodies_of_a_batch_are_bounded_together(maker: Maker, site: Site) -> None:
    site.routes["/a"] = reply(b"x" * 1000)
    service = maker.service(site, settings=Api(batch_bytes=2500))
    found = many(service, *[api.Request(url=site.url("/a"))] * 4, concurrency=1)
    assert found == [200, 200, BodyTooLarge, BodyTooLarge]


def test_no_error_tells_a_secret_of_its_call(maker: Maker) -> None:
    call = api.Request(url="http://user:geheimnis@10.0.0.1/?token=geheimnis", retry=ONCE)
    (found,) = maker.service().request_many(api.RequestMany((call,)), Scope.lasting(30)).items
    assert isinstance(found.error, GaiaError)
    assert "geheimnis" not in repr(found.error)


def test_a_closed_service_sends_nothing_and_hangs_nobody(maker: Maker, site: Site) -> None:
    service, site.routes["/a"] = maker.service(site), reply()
    assert many(service, api.Request(url=site.url("/a"))) == [200]
    service.close()
    assert many(service, api.Request(url=site.url("/a"), retry=ONCE)) == [ConnectFailed]


@pytest.mark.parametrize("calls", [(), (api.Request(url="http://h/"),) * 1001])
def test_a_batch_has_one_to_a_thousand_requests(calls: tuple[api.Request, ...]) -> None:
    with pytest.raises(InvalidCall, match="calls"):
        api.RequestMany(calls)

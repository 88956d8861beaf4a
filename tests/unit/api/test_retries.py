"""What is tried again, when, and what a server's word to come back does."""

from email.utils import formatdate

import pytest

from gaia.contracts import api
from gaia.errors import CircuitOpen, ConnectFailed, LimitExceeded, ServerBusy
from gaia.store.limits import Limit
from tasks.api.incoming import Answer, retry_after_s
from tasks.scope import Later, Scope
from tests.support.requests import Maker, limits
from tests.support.web import Asked, Site, reply

QUICK = api.Retry(base_s=0.001, cap_s=0.001)


def scope(attempts: int = 1, seconds: float = 30.0) -> Scope:
    lasting = Scope.lasting(seconds)
    lasting.attempts = attempts
    return lasting


def test_a_busy_answer_is_an_error_while_attempts_are_left_and_then_the_answer(maker: Maker, site: Site) -> None:
    service, site.routes["/a"] = maker.service(site), reply(b"later", 503)
    first = scope()
    with pytest.raises(ServerBusy) as caught:
        service.request(api.Request(url=site.url("/a")), first)
    assert (caught.value.status, first.retryable) == (503, True)
    assert service.request(api.Request(url=site.url("/a")), scope(attempts=3)).status == 503
    assert service.request(api.Request(url=site.url("/a"), method="POST"), scope()).status == 503
    with pytest.raises(ServerBusy):
        service.request(api.Request(url=site.url("/a"), method="POST", retry=api.Retry(any_method=True)), scope())


def test_a_server_that_says_when_is_left_alone_by_everybody_until_then(maker: Maker, site: Site) -> None:
    service, site.routes["/a"] = maker.service(site), reply(b"", 429, "Retry-After: 7")
    with pytest.raises(ServerBusy) as caught:
        service.request(api.Request(url=site.url("/a")), scope())
    assert caught.value.retry_after_s == 7
    with pytest.raises(Later) as later:
        service.request(api.Request(url=site.url("/a")), scope())
    assert 6 < later.value.after_s <= 7
    with pytest.raises(LimitExceeded, match="retry-after"):
        service.request(api.Request(url=site.url("/a")), scope(seconds=3))
    assert len(site.asked) == 1


def test_a_server_that_asks_for_more_than_the_deadline_has_given_its_answer(maker: Maker, site: Site) -> None:
    service, site.routes["/a"] = maker.service(site), reply(b"", 429, "Retry-After: 700")
    assert service.request(api.Request(url=site.url("/a")), scope()).status == 429


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), (" 5 ", 5.0), ("99999999999999", 3600.0), ("-1", 0.0), ("soon", 0.0), ("", 0.0), ("1.5", 0.0)],
)
def test_retry_after_is_read_as_rfc_9110_has_it(text: str, seconds: float) -> None:
    assert retry_after_s(Answer(503, [("Retry-After", text)], b""), 1000.0, 3600.0) == seconds


def test_retry_after_may_be_a_date() -> None:
    answer = Answer(503, [("retry-after", formatdate(1_000_030, usegmt=True))], b"")
    assert retry_after_s(answer, 1_000_000.0, 3600.0) == 30.0
    assert retry_after_s(answer, 1_000_060.0, 3600.0) == 0.0


def test_failures_in_a_row_open_the_circuit_and_4xx_are_none(maker: Maker, site: Site) -> None:
    service = maker.service(site)
    site.routes["/a"], site.routes["/b"] = reply(b"", 500), reply(b"", 404)
    for _ in range(4):
        assert service.request(api.Request(url=site.url("/a")), scope()).status == 500
    assert service.request(api.Request(url=site.url("/b")), scope()).status == 404
    for _ in range(5):
        service.request(api.Request(url=site.url("/a")), scope())
    with pytest.raises(Later):
        service.request(api.Request(url=site.url("/b")), scope(seconds=60))
    with pytest.raises(CircuitOpen):
        service.request(api.Request(url=site.url("/b")), scope(seconds=5))


def test_a_host_without_a_budget_is_not_tried_again(maker: Maker) -> None:
    with Site() as gone:
        service, url = maker.service(gone, limited=limits(**{"127.0.0.1": Limit(failure_threshold=1000)})), gone.url()
    retryable = []
    for _ in range(30):
        bound = scope()
        with pytest.raises(ConnectFailed):
            service.request(api.Request(url=url), bound)
        retryable.append(bound.retryable)
    assert retryable[:10] == [True] * 10
    assert retryable.count(True) <= 14


def test_a_rate_that_is_used_up_gives_the_slot_back(maker: Maker, site: Site) -> None:
    service, site.routes["/a"] = (
        maker.service(site, limited=limits(**{"127.0.0.1": Limit(rate_per_s=0.5, burst=1)})),
        reply(),
    )
    service.request(api.Request(url=site.url("/a")), scope())
    with pytest.raises(Later) as later:
        service.request(api.Request(url=site.url("/a")), scope())
    assert 1.0 < later.value.after_s <= 2.0


def test_the_key_of_a_call_has_its_own_limits(maker: Maker, site: Site) -> None:
    service, site.routes["/a"] = (
        maker.service(site, limited=limits(**{"key:acme": Limit(rate_per_s=0.5, burst=1)})),
        reply(),
    )
    service.request(api.Request(url=site.url("/a"), tenant="acme"), scope())
    service.request(api.Request(url=site.url("/a"), tenant="other"), scope())
    with pytest.raises(Later):
        service.request(api.Request(url=site.url("/a"), tenant="acme"), scope())


def test_a_hop_that_is_kept_out_is_no_reason_to_begin_anew(maker: Maker, site: Site) -> None:
    limited = limits(**{"127.0.0.1": Limit(rate_per_s=0.5, burst=1)})
    service = maker.service(site, limited=limited)
    site.routes |= {"/a": reply(b"", 303, "Location: /b"), "/b": reply()}
    with pytest.raises(LimitExceeded):
        service.request(api.Request(url=site.url("/a"), method="POST"), scope())


def test_a_kept_alive_connection_that_dies_as_it_is_used_is_replaced(maker: Maker, site: Site) -> None:
    service = maker.service(site)
    left = iter([False, True, False])

    def once_only(asked: Asked, _: object) -> bytes | None:
        return None if next(left) else reply(b"here")

    site.routes["/a"] = once_only
    once = api.Retry(attempts=1)
    for _ in range(2):
        assert service.request(api.Request(url=site.url("/a"), retry=once), scope()).body == b"here"
    assert [each.method for each in site.asked] == ["GET"] * 3

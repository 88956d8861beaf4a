"""The bulk engine's thread: whatever happens to it, nobody waits for ever."""

import pytest

from gaia.contracts import api
from gaia.errors import ConnectFailed, EgressDenied
from tasks import metrics
from tasks.api import outgoing
from tasks.api.budget import Budget
from tasks.api.engine import Engine
from tasks.api.transfer import Transfer
from tasks.egress.judge import Judge
from tasks.scope import Scope
from tests.support.requests import ONCE, Maker
from tests.support.waiting import until
from tests.support.web import Site, reply


def test_an_engine_that_fails_ends_what_it_had_and_the_next_request_starts_another(
    maker: Maker, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.routes["/a"] = reply()
    service = maker.service(site)
    call = api.RequestMany((api.Request(url=site.url("/a"), retry=ONCE),) * 3)
    conclude = Transfer.conclude

    def fail(*_: object) -> None:
        raise OSError("out of luck")

    monkeypatch.setattr(Transfer, "conclude", fail)
    found = service.request_many(call, Scope.lasting(30)).items
    assert [type(each.error) for each in found] == [ConnectFailed] * 3
    monkeypatch.setattr(Transfer, "conclude", conclude)
    assert all(each.ok for each in service.request_many(call, Scope.lasting(30)).items)
    # Circuits that other tests of this process opened make it degraded, no more.
    assert service.health(api.Health(), Scope.lasting()).status != "unhealthy"


def test_what_a_batch_was_told_of_an_address_is_judged_again_as_it_is_dialled(site: Site) -> None:
    engine = Engine(Judge(), 10, 1.0, "/dev/null")
    sent = outgoing.first(api.Request(url=site.url("/a")), "test")
    ended: list[Transfer] = []
    transfer = Transfer(
        sent=sent, fields=sent.headers, addresses=("127.0.0.1",), verify=True, timeout_s=5.0, connect_timeout_s=5.0,
        limit_bytes=100, follows=True, operation="x", whole_timeout_s=5.0, done=ended.extend, budget=Budget(100),
    )  # fmt: skip
    try:
        engine.submit([transfer])
        until(lambda: ended, what="the end of the transfer")
        assert isinstance(transfer.error, EgressDenied)
        assert site.connections == 0
    finally:
        engine.close()


def test_what_the_thread_uses_counts_as_the_operation_that_has_it(maker: Maker, site: Site) -> None:
    site.routes["/a"] = reply()
    meters = metrics.meters(api.RequestMany.OPERATION)
    before = meters.cpu_s
    call = api.RequestMany((api.Request(url=site.url("/a"), retry=ONCE),) * 3)
    assert all(each.ok for each in maker.service(site).request_many(call, Scope.lasting(30)).items)
    until(lambda: meters.cpu_s > before)

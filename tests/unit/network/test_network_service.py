"""`network.resolve` against a real name server on loopback."""

import pytest

from gaia.contracts import network
from gaia.errors import Cancelled, DeadlineExceeded, NameNotFound, ResolverFailed
from tasks.egress.resolver import Resolver
from tasks.network.service import NetworkService
from tasks.scope import Clock, Scope
from tests.support.dns import NameServer


def service(server: NameServer) -> NetworkService:
    return NetworkService(resolver=Resolver([server.address], clock=Clock(monotonic=lambda: 100.0)))


def test_a_name_gives_its_addresses_and_then_comes_from_the_cache(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1", "www.test. 60 IN AAAA 2001:db8::1")
    names = service(name_server)
    call = network.Resolve(name="www.test")
    assert names.resolve(call, Scope.lasting()) == network.Resolved("www.test", "A", ("192.0.2.1",), 60.0, cached=False)
    assert names.resolve(call, Scope.lasting()) == network.Resolved("www.test", "A", ("192.0.2.1",), 60.0, cached=True)
    six = names.resolve(network.Resolve(name="www.test", type="AAAA"), Scope.lasting())
    assert six.addresses == ("2001:db8::1",)


def test_a_literal_is_its_own_answer(name_server: NameServer) -> None:
    found = service(name_server).resolve(network.Resolve(name="0x7f.1"), Scope.lasting())
    assert (found.name, found.addresses, found.cached) == ("0x7f.1", ("127.0.0.1",), True)
    assert name_server.asked == []


def test_a_missing_name_and_a_silent_server_are_told_apart(name_server: NameServer) -> None:
    name_server.silent.add("silent.test.")
    names = service(name_server)
    with pytest.raises(NameNotFound):
        names.resolve(network.Resolve(name="none.test"), Scope.lasting())
    with pytest.raises(ResolverFailed):
        names.resolve(network.Resolve(name="silent.test", timeout_s=0.1), Scope.lasting())


def test_the_deadline_goes_before_the_resolvers_failure(name_server: NameServer) -> None:
    name_server.silent.add("silent.test.")
    with pytest.raises(DeadlineExceeded):
        service(name_server).resolve(network.Resolve(name="silent.test", timeout_s=30), Scope.lasting(0.1))


def test_a_cancelled_call_is_not_looked_up(name_server: NameServer) -> None:
    scope = Scope.lasting()
    scope.cancelled.set()
    with pytest.raises(Cancelled):
        service(name_server).resolve(network.Resolve(name="www.test"), scope)
    assert name_server.asked == []


def test_closing_twice_does_no_harm(name_server: NameServer) -> None:
    names = service(name_server)
    names.close()
    names.close()

"""Names, bandwidth and connections as a service, against a real name server on loopback."""

from typing import Any

import pytest

from config.settings import Limits as Defaults
from gaia.contracts import network
from gaia.errors import (
    Cancelled,
    DeadlineExceeded,
    EgressDenied,
    InvalidCall,
    LeaseLost,
    LimitExceeded,
    NameNotFound,
    ResolverFailed,
)
from gaia.store.limits import Limit
from tasks.limits.cluster import Limits
from tasks.limits.policy import Policy
from tasks.limits.protocols import Lease
from tasks.scope import Clock, Scope
from tests.support.dns import NameServer
from tests.unit.network.conftest import Make

STILL = Clock(monotonic=lambda: 100.0)


def test_a_name_gives_its_addresses_and_then_comes_from_the_cache(name_server: NameServer, make: Make) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1", "www.test. 60 IN AAAA 2001:db8::1")
    names = make(name_server, clock=STILL)
    call = network.Resolve(name="www.test")
    assert names.resolve(call, Scope.lasting()) == network.Resolved("www.test", "A", ("192.0.2.1",), 60.0, cached=False)
    for _ in range(3):
        known = network.Resolved("www.test", "A", ("192.0.2.1",), 60.0, cached=True)
        assert names.resolve(call, Scope.lasting()) == known
    six = names.resolve(network.Resolve(name="www.test", type="AAAA"), Scope.lasting())
    assert six.addresses == ("2001:db8::1",)


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("MX", "10 mail.test."),
        ("TXT", '"v=spf1 -all" "two"'),
        ("SRV", "0 5 5060 sip.test."),
        ("NS", "ns.test."),
        ("CAA", '0 issue "ca.test"'),
        ("PTR", "www.test."),
        ("SOA", "ns.test. admin.test. 1 2 3 4 5"),
        ("CNAME", "real.test."),
    ],
)
def test_records_of_every_type_come_in_their_own_form(
    name_server: NameServer, make: Make, kind: network.RecordType, record: str
) -> None:
    name_server.add(f"_x.www.test. 60 IN {kind} {record}")
    names = make(name_server)
    found = names.resolve(network.Resolve(name="_x.www.test", type=kind), Scope.lasting())
    assert (found.addresses, found.records) == ((), (record,))
    many = make(name_server).resolve_many(network.ResolveMany(names=("_x.www.test",), type=kind), Scope.lasting())
    assert many.items[0].unwrap().records == (record,)


def test_a_literal_is_its_own_answer(name_server: NameServer, make: Make) -> None:
    found = make(name_server).resolve(network.Resolve(name="0x7f.1"), Scope.lasting())
    assert (found.name, found.addresses, found.cached) == ("0x7f.1", ("127.0.0.1",), True)
    assert name_server.asked == []


def test_a_missing_name_and_a_silent_server_are_told_apart(name_server: NameServer, make: Make) -> None:
    name_server.silent.add("silent.test.")
    names = make(name_server)
    with pytest.raises(NameNotFound):
        names.resolve(network.Resolve(name="none.test"), Scope.lasting())
    with pytest.raises(ResolverFailed):
        names.resolve(network.Resolve(name="silent.test", timeout_s=0.1), Scope.lasting())


def test_a_loop_of_aliases_is_a_failure_and_nothing_is_kept(name_server: NameServer, make: Make) -> None:
    name_server.add("a.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME a.test.")
    names = make(name_server)
    with pytest.raises(ResolverFailed):
        names.resolve(network.Resolve(name="a.test", timeout_s=2), Scope.lasting())
    (outcome,) = names.resolve_many(network.ResolveMany(names=("a.test",), timeout_s=2), Scope.lasting()).items
    assert isinstance(outcome.error, ResolverFailed)
    assert names.stats(network.Stats(), Scope.lasting()).names == 0


def test_the_deadline_goes_before_the_resolvers_failure(name_server: NameServer, make: Make) -> None:
    name_server.silent.add("silent.test.")
    with pytest.raises(DeadlineExceeded):
        make(name_server).resolve(network.Resolve(name="silent.test", timeout_s=30), Scope.lasting(0.1))


def test_a_cancelled_call_is_not_looked_up(name_server: NameServer, make: Make) -> None:
    scope = Scope.lasting()
    scope.cancelled.set()
    with pytest.raises(Cancelled):
        make(name_server).resolve(network.Resolve(name="www.test"), scope)
    with pytest.raises(Cancelled):
        make(name_server).resolve_many(network.ResolveMany(names=("www.test",)), scope)
    assert name_server.asked == []


def test_chosen_servers_are_asked_past_hosts_and_cache(name_server: NameServer, make: Make) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1", "localhost. 60 IN A 192.0.2.9")
    names = make(cidrs=("127.0.0.1/32",))
    call = network.Resolve(name="www.test", servers=(name_server.address,))
    for _ in range(2):
        assert not names.resolve(call, Scope.lasting()).cached
    assert len(name_server.asked) == 2


def test_chosen_servers_are_judged_like_any_dial(name_server: NameServer, make: Make) -> None:
    call = network.Resolve(name="www.test", servers=(name_server.address,))
    with pytest.raises(EgressDenied, match="loopback"):
        make().resolve(call, Scope.lasting())
    with pytest.raises(EgressDenied, match="PROBE_PORTS"):
        make(cidrs=("127.0.0.1/32",), ports=("53",)).resolve(call, Scope.lasting())
    with pytest.raises(InvalidCall, match="servers"):
        make().resolve(network.Resolve(name="www.test", servers=("dns.test",)), Scope.lasting())
    assert name_server.asked == []


@pytest.mark.parametrize(
    ("server", "error"),
    [
        ("[::1]:53", EgressDenied),
        ("[::ffff:127.0.0.1]:53", EgressDenied),
        ("[::ffff:7f00:1]:53", InvalidCall),  # not the canonical spelling
        ("[::127.0.0.1]:53", EgressDenied),
        ("[64:ff9b::7f00:1]:53", EgressDenied),
        ("[2002:7f00:1::]:53", EgressDenied),
        ("[fe80::1%lo]:53", EgressDenied),
        ("0.0.0.0:53", EgressDenied),
        ("127.1", InvalidCall),
        ("2130706433", InvalidCall),
        ("[::]", EgressDenied),
        ("224.0.0.1", EgressDenied),
        ("192.0.2.53:", InvalidCall),
        ("192.0.2.53:0", InvalidCall),
        ("192.0.2.53:65536", InvalidCall),
        ("[192.0.2.53", InvalidCall),
        ("[192.0.2.53]53", InvalidCall),
        ("[192.0.2.53]:", InvalidCall),
    ],
)
def test_no_spelling_of_an_inner_server_is_asked(make: Make, server: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        make().resolve(network.Resolve("www.test", servers=(server,), timeout_s=0.5), Scope.lasting())


def test_many_names_have_an_outcome_each(name_server: NameServer, make: Make) -> None:
    name_server.add("a.test. 60 IN A 192.0.2.1")
    call = network.ResolveMany(names=("a.test", "none.test", "b" * 300, "", "bücher.test"))
    found = make(name_server).resolve_many(call, Scope.lasting())
    assert [each.ok for each in found.items] == [True, False, False, False, False]
    assert found.items[0].unwrap().addresses == ("192.0.2.1",)
    assert {type(each.error) for each in found.items[1:]} == {NameNotFound}
    (long,) = make(name_server).resolve_many(network.ResolveMany(("ü" * 100_000,)), Scope.lasting()).items
    assert isinstance(long.error, NameNotFound)
    assert len(long.error.name) <= 1000
    sent = network.ResolveMany.from_json(call.fields_json())
    assert sent == call


def test_a_flush_tells_how_many_names_were_known(name_server: NameServer, make: Make) -> None:
    name_server.add("a.test. 60 IN A 192.0.2.1")
    names = make(name_server)
    names.resolve(network.Resolve(name="a.test"), Scope.lasting())
    assert names.flush_dns(network.FlushDns(), Scope.lasting()) == network.Flushed(1)
    assert not names.resolve(network.Resolve(name="a.test"), Scope.lasting()).cached


def test_bytes_wait_for_their_bandwidth_and_what_takes_too_long_is_refused_at_once(make: Make) -> None:
    given = {"job:backup": Limit(bytes_per_s=10_000, burst_bytes=1000)}
    service = make(limits=Limits.in_memory(Policy(Defaults(), given)))
    waited = service.throttle(network.Throttle(size_bytes=2000, job="backup"), Scope.lasting())
    assert waited.size_bytes == 2000
    assert waited.waited_s > 0
    with pytest.raises(LimitExceeded) as caught:
        service.throttle(network.Throttle(size_bytes=10**6, job="backup", timeout_s=1), Scope.lasting())
    assert caught.value.limit == "bytes:job:backup"
    assert caught.value.retry_after_s > 90
    with pytest.raises(LimitExceeded):
        service.throttle(network.Throttle(size_bytes=10**5, job="backup"), Scope.lasting(1))


def test_without_a_bandwidth_bytes_wait_for_nothing(make: Make) -> None:
    found = make().throttle(network.Throttle(size_bytes=2**40, host="a.test"), Scope.lasting())
    assert found.waited_s < 1


def test_a_cancel_ends_the_wait_for_bandwidth(make: Make) -> None:
    given = {"job:backup": Limit(bytes_per_s=1000, burst_bytes=100)}
    scope = Scope.lasting()
    scope.cancelled.set()
    with pytest.raises(Cancelled):
        make(limits=Limits.in_memory(Policy(Defaults(), given))).throttle(network.Throttle(500, job="backup"), scope)


def test_connections_are_bounded_by_host_and_altogether(make: Make) -> None:
    defaults = Defaults(connections=3, host_connections=2)
    service = make(limits=Limits.in_memory(Policy(defaults, {})))

    def acquire(host: str) -> network.Connection:
        return service.acquire_connection(network.AcquireConnection(host, timeout_s=0.001), Scope.lasting())

    first, _ = acquire("a.test"), acquire("a.test")
    with pytest.raises(LimitExceeded) as caught:
        acquire("a.test")
    assert caught.value.limit == "slots:a.test"
    acquire("b.test")
    with pytest.raises(LimitExceeded) as caught:
        acquire("b.test")
    assert caught.value.limit == "slots:pool:connections"
    assert service.stats(network.Stats(), Scope.lasting()).connections == 3
    assert service.release_connection(network.ReleaseConnection(first.lease), Scope.lasting()).host == "a.test"
    acquire("a.test")


def test_a_lease_is_given_back_once_and_only_as_it_was_given(make: Make) -> None:
    service = make()
    given = service.acquire_connection(network.AcquireConnection("a.test"), Scope.lasting()).lease
    for other in (given.replace("a.test", "b.test"), "0" * 16 + "@a.test"):
        with pytest.raises(LeaseLost):
            service.release_connection(network.ReleaseConnection(other), Scope.lasting())
    service.release_connection(network.ReleaseConnection(given), Scope.lasting())
    with pytest.raises(LeaseLost):
        service.release_connection(network.ReleaseConnection(given), Scope.lasting())


def test_a_slot_that_a_cancelled_call_got_is_given_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, scope = Limits.in_memory(Policy(Defaults(), {})), Scope.lasting()
    lend = limits.lend

    def lends(*given: Any, **named: Any) -> Lease:
        found = lend(*given, **named)
        scope.cancelled.set()
        return found

    monkeypatch.setattr(limits, "lend", lends)
    with pytest.raises(Cancelled):
        make(limits=limits).acquire_connection(network.AcquireConnection("a.test", ttl_s=86_400), scope)
    assert limits.lent("slots:a.test") == 0


def test_stats_tell_how_look_ups_went(name_server: NameServer, make: Make) -> None:
    name_server.add("a.test. 60 IN A 192.0.2.1")
    service = make(name_server)
    for _ in range(10):
        service.resolve(network.Resolve("a.test"), Scope.lasting())
    with pytest.raises(NameNotFound):
        service.resolve(network.Resolve("none.test"), Scope.lasting())
    found = service.stats(network.Stats(), Scope.lasting())
    assert (found.worker, found.names, found.capacity, found.hits, found.asked) == ("here", 2, 1000, 9, 2)
    assert (found.hit_ratio, found.connections, found.connections_limit) == (round(9 / 11, 6), 0, 1000)


def test_health_tells_a_server_that_answers_from_one_that_does_not(name_server: NameServer, make: Make) -> None:
    well = make(name_server).health(network.Health(), Scope.lasting())
    assert (well.state, well.worker) == ("healthy", "here")
    assert [each.name for each in well.checks][1:] == ["redis", "icmp"]
    name_server.silent.add(".")
    ill = make(name_server).health(network.Health(), Scope.lasting())
    assert ill.state == "unhealthy"
    assert not ill.checks[0].ok
    assert make().health(network.Health(), Scope.lasting()).state == "unhealthy"


def test_closing_twice_does_no_harm(name_server: NameServer, make: Make) -> None:
    names = make(name_server)
    names.close()
    names.close()

"""Names to addresses, against a real name server on loopback."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dns.rcode
import pytest

from config.settings import SettingsError
from gaia.errors import NameNotFound, ResolverFailed
from tasks.egress.resolver import Resolver
from tasks.scope import Clock
from tests.support.dns import NameServer


class Hand:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)


def test_an_answer_has_the_servers_addresses_and_ttl(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1", "www.test. 60 IN A 192.0.2.2", "www.test. 30 IN AAAA 2001:db8::1")
    resolver = Resolver([name_server.address], clock=Hand().clock)
    four = resolver.resolve("WWW.test.", "A", timeout_s=5)
    assert (four.name, four.type, set(four.addresses)) == ("www.test", "A", {"192.0.2.1", "192.0.2.2"})
    assert (four.ttl_s, four.cached, four.local) == (60.0, False, False)
    six = resolver.resolve("www.test", "AAAA", timeout_s=5)
    assert (six.addresses, six.ttl_s) == (("2001:db8::1",), 30.0)


def test_a_second_look_up_asks_no_server_until_the_ttl_ends(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock)
    resolver.resolve("www.test", "A", timeout_s=5)
    hand.now += 59
    again = resolver.resolve("Www.Test.", "A", timeout_s=5)
    assert (again.cached, again.ttl_s, len(name_server.asked)) == (True, 1.0, 1)
    hand.now += 1
    assert not resolver.resolve("www.test", "A", timeout_s=5).cached
    assert len(name_server.asked) == 2


def test_a_long_ttl_is_cut(name_server: NameServer) -> None:
    name_server.add("www.test. 86400 IN A 192.0.2.1")
    resolver = Resolver([name_server.address], max_ttl_s=10, clock=Hand().clock)
    assert resolver.resolve("www.test", "A", timeout_s=5).ttl_s == 10


def test_an_alias_is_followed_and_its_shortest_ttl_counts(name_server: NameServer) -> None:
    name_server.add("www.test. 7 IN CNAME real.test.", "real.test. 60 IN A 192.0.2.1")
    answer = Resolver([name_server.address], clock=Hand().clock).resolve("www.test", "A", timeout_s=5)
    assert (answer.addresses, answer.ttl_s) == (("192.0.2.1",), 7.0)


def test_a_name_that_does_not_exist_is_not_found_and_soon_asked_again(name_server: NameServer) -> None:
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock)
    for _ in range(2):
        with pytest.raises(NameNotFound) as caught:
            resolver.resolve("none.test", "A", timeout_s=5)
        assert caught.value.args == ("none.test", "A")
    assert len(name_server.asked) == 1
    hand.now += 5
    name_server.add("none.test. 60 IN A 192.0.2.1")
    assert resolver.resolve("none.test", "A", timeout_s=5).addresses == ("192.0.2.1",)


def test_a_name_without_records_of_the_type_is_not_found(name_server: NameServer) -> None:
    name_server.add("four.test. 60 IN A 192.0.2.1")
    with pytest.raises(NameNotFound):
        Resolver([name_server.address]).resolve("four.test", "AAAA", timeout_s=5)


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_failing_server_is_a_failure_and_not_kept(name_server: NameServer, rcode: dns.rcode.Rcode) -> None:
    name_server.rcodes["www.test."] = rcode
    resolver = Resolver([name_server.address])
    with pytest.raises(ResolverFailed):
        resolver.resolve("www.test", "A", timeout_s=5)
    name_server.rcodes.clear()
    name_server.add("www.test. 60 IN A 192.0.2.1")
    assert resolver.resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.1",)


def test_a_truncated_answer_is_fetched_by_tcp(name_server: NameServer) -> None:
    name_server.add("big.test. 60 IN A 192.0.2.1")
    name_server.truncated.add("big.test.")
    found = Resolver([name_server.address]).resolve("big.test", "A", timeout_s=5)
    assert found.addresses == ("192.0.2.1",)
    assert [kind for _, kind in name_server.asked] == ["A", "A by tcp"]


def test_a_malformed_answer_is_a_failure_within_the_bound_and_not_kept(name_server: NameServer) -> None:
    resolver = Resolver([name_server.address])
    name_server.garbled["www.test."] = b"\0\1\0\0\0\0" + b"\xff" * 20
    with pytest.raises(ResolverFailed):
        resolver.resolve("www.test", "A", timeout_s=0.5)
    name_server.garbled.clear()
    name_server.add("www.test. 60 IN A 192.0.2.1")
    assert resolver.resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.1",)


def test_a_silent_server_is_a_failure_within_the_bound(name_server: NameServer) -> None:
    name_server.silent.add("www.test.")
    with pytest.raises(ResolverFailed, match="no answer within"):
        Resolver([name_server.address]).resolve("www.test", "A", timeout_s=0.1)


def test_without_any_server_names_fail_and_literals_do_not(tmp_path: Path) -> None:
    resolver = Resolver(resolv_conf=tmp_path / "missing")
    with pytest.raises(ResolverFailed, match="no name server"):
        resolver.resolve("www.test", "A", timeout_s=5)
    assert resolver.resolve("0x7f.1", "A", timeout_s=5).addresses == ("127.0.0.1",)
    (tmp_path / "empty").write_text("search test\n")
    with pytest.raises(ResolverFailed):
        Resolver(resolv_conf=tmp_path / "empty").resolve("www.test", "A", timeout_s=0.1)


@pytest.mark.parametrize(
    "spelling", ["127.0.0.1", "2130706433", "127.1", "0", "[::1]", "::ffff:127.0.0.1", "256.1.1.1"]
)
def test_a_literal_is_never_sent_to_a_server(name_server: NameServer, spelling: str) -> None:
    resolver = Resolver([name_server.address])
    for kind in ("A", "AAAA"):
        try:
            answer = resolver.resolve(spelling, kind, timeout_s=5)
            assert answer.cached
            assert answer.local
        except NameNotFound:
            continue
    assert name_server.asked == []


def test_the_hosts_file_goes_first(name_server: NameServer, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("10.0.0.7 www.test\n")
    name_server.add("www.test. 60 IN A 192.0.2.1", "www.test. 60 IN AAAA 2001:db8::1")
    resolver = Resolver([name_server.address], hosts=tmp_path / "hosts")
    answer = resolver.resolve("www.test", "A", timeout_s=5)
    assert (answer.addresses, answer.cached, answer.local) == (("10.0.0.7",), True, True)
    with pytest.raises(NameNotFound):
        resolver.resolve("www.test", "AAAA", timeout_s=5)
    assert name_server.asked == []


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "app.localhost"])
def test_localhost_is_loopback_whatever_a_server_says(name_server: NameServer, tmp_path: Path, name: str) -> None:
    name_server.add("localhost. 60 IN A 192.0.2.1", "app.localhost. 60 IN A 192.0.2.1")
    resolver = Resolver([name_server.address], hosts=tmp_path / "missing")
    assert resolver.resolve(name, "A", timeout_s=5).addresses == ("127.0.0.1",)
    assert resolver.resolve(name, "AAAA", timeout_s=5).addresses == ("::1",)


@pytest.mark.parametrize("name", ["", "a b", "a..b", "x" * 64, "a\\000b", "\udcff"])
def test_what_is_no_name_is_not_found(name_server: NameServer, name: str) -> None:
    with pytest.raises(NameNotFound):
        Resolver([name_server.address]).resolve(name, "A", timeout_s=5)
    assert name_server.asked == []


def test_a_name_of_another_script_is_asked_in_its_encoded_form(name_server: NameServer) -> None:
    name_server.add("xn--bcher-kva.test. 60 IN A 192.0.2.1")
    answer = Resolver([name_server.address]).resolve("B\u00fccher.test", "A", timeout_s=5)
    assert (answer.name, answer.addresses) == ("xn--bcher-kva.test", ("192.0.2.1",))


def test_the_least_recently_used_name_leaves_a_full_cache(name_server: NameServer) -> None:
    for name in ("a.test.", "b.test.", "c.test."):
        name_server.add(f"{name} 60 IN A 192.0.2.1")
    resolver = Resolver([name_server.address], cache_entries=2)
    for name in ("a.test", "b.test", "a.test", "c.test"):
        resolver.resolve(name, "A", timeout_s=5)
    assert resolver.resolve("a.test", "A", timeout_s=5).cached
    assert not resolver.resolve("b.test", "A", timeout_s=5).cached


def test_many_threads_that_ask_one_name_make_one_question(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    name_server.open.clear()
    resolver = Resolver([name_server.address])
    ready = threading.Barrier(9)

    def ask() -> tuple[str, ...]:
        ready.wait(10)
        return resolver.resolve("www.test", "A", timeout_s=10).addresses

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask) for _ in range(8)]
        ready.wait(10)
        name_server.open.set()
        assert {each.result(10) for each in answers} == {("192.0.2.1",)}
    assert len(name_server.asked) == 1


def test_an_impatient_thread_does_not_fail_the_ones_that_wait_with_it(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    name_server.open.clear()
    resolver = Resolver([name_server.address])
    with ThreadPoolExecutor(2) as pool:
        impatient = pool.submit(resolver.resolve, "www.test", "A", timeout_s=0.3)
        patient = pool.submit(resolver.resolve, "www.test", "A", timeout_s=10)
        assert isinstance(impatient.exception(10), ResolverFailed)
        name_server.open.set()
        assert patient.result(10).addresses == ("192.0.2.1",)


@pytest.mark.parametrize("entry", ["dns.example.org", "127.0.0.1:0", "127.0.0.1:x", "[::1]:99999", "1.1", ""])
def test_a_name_server_that_is_no_address_stops_the_start(entry: str) -> None:
    with pytest.raises(SettingsError, match="GAIA_NETWORK__NAMESERVERS"):
        Resolver([entry])


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.1:5353", "::1", "[::1]", "[::1]:5353"])
def test_a_name_server_may_name_its_port(entry: str) -> None:
    Resolver([entry])

"""What is kept of names: for how long, in which order it goes, and what a flush does."""

import threading

import pytest

from gaia.errors import NameNotFound, ResolverFailed
from tasks import metrics
from tasks.egress.cache import SIZE_LIMIT_BYTES, Cache
from tasks.egress.resolver import Resolver
from tasks.egress.wire import Found
from tasks.scope import Clock
from tests.support.dns import NameServer
from tests.support.waiting import until


class Hand:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)


def asked(server: NameServer, name: str) -> int:
    return [each for each, _ in server.asked].count(name)


def test_a_stale_answer_is_given_at_once_and_asked_for_anew(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock, stale_s=30)
    resolver.resolve("www.test", "A", timeout_s=5)
    name_server.records["www.test."] = ["www.test. 60 IN A 192.0.2.2"]
    hand.now += 61
    found = resolver.resolve("www.test", "A", timeout_s=5)
    assert (found.addresses, found.cached, found.stale, found.ttl_s) == (("192.0.2.1",), True, True, 0.0)
    until(lambda: not resolver.resolve("www.test", "A", timeout_s=5).stale, what="the refresh")
    assert resolver.resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.2",)
    assert asked(name_server, "www.test.") == 2
    resolver.close()


def test_an_answer_is_stale_no_longer_than_its_ttl(name_server: NameServer) -> None:
    name_server.add("www.test. 5 IN A 192.0.2.1")
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock, stale_s=30)
    resolver.resolve("www.test", "A", timeout_s=5)
    hand.now += 10
    assert not resolver.resolve("www.test", "A", timeout_s=5).cached


def test_what_does_not_exist_is_never_stale(name_server: NameServer) -> None:
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock, stale_s=30)
    with pytest.raises(NameNotFound):
        resolver.resolve("www.test", "A", timeout_s=5)
    name_server.add("www.test. 60 IN A 192.0.2.1")
    hand.now += 5
    assert resolver.resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.1",)


def test_a_stale_answer_whose_servers_fail_is_given_and_asked_for_once_a_second(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock, stale_s=30)
    resolver.resolve("www.test", "A", timeout_s=5)
    name_server.garbled["www.test."] = b"\xff" * 20
    hand.now += 61
    assert resolver.resolve("www.test", "A", timeout_s=5).stale
    until(lambda: resolver.tally.counts()["failed"], what="the failed refresh")
    for _ in range(20):
        assert resolver.resolve("www.test", "A", timeout_s=5).stale
    assert asked(name_server, "www.test.") == 2
    hand.now += 30
    with pytest.raises(ResolverFailed):
        resolver.resolve("www.test", "A", timeout_s=1)
    resolver.close()


def test_a_silent_server_of_one_stale_name_delays_no_other(name_server: NameServer) -> None:
    name_server.add("a.test. 10 IN A 192.0.2.1", "b.test. 10 IN A 192.0.2.2")
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock, stale_s=30)
    for name in ("a.test", "b.test"):
        resolver.resolve(name, "A", timeout_s=5)
    name_server.silent.add("a.test.")
    hand.now += 11
    assert resolver.resolve("a.test", "A", timeout_s=5).stale
    until(lambda: len(name_server.asked) == 3, what="the question for a")
    assert resolver.resolve("b.test", "A", timeout_s=5).stale
    hand.now += 30
    assert not resolver.resolve("b.test", "A", timeout_s=3).stale
    resolver.close()


def test_a_stale_answer_is_given_even_if_no_thread_can_be_started(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("can't start new thread")

    name_server.add("a.test. 10 IN A 192.0.2.1")
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock, stale_s=30)
    resolver.resolve("a.test", "A", timeout_s=5)
    hand.now += 11
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        assert resolver.resolve("a.test", "A", timeout_s=5).stale
    hand.now += 30
    assert not resolver.resolve("a.test", "A", timeout_s=5).stale
    resolver.close()


def test_a_record_that_may_not_be_kept_is_not(name_server: NameServer) -> None:
    name_server.add("www.test. 0 IN A 192.0.2.1")
    resolver = Resolver([name_server.address], clock=Hand().clock, stale_s=30)
    for _ in range(2):
        assert not resolver.resolve("www.test", "A", timeout_s=5).cached
    assert asked(name_server, "www.test.") == 2


def test_the_short_way_tells_whole_seconds_and_ends_with_the_answer(name_server: NameServer) -> None:
    name_server.add("www.test. 3 IN A 192.0.2.1")
    hand = Hand()
    resolver = Resolver([name_server.address], clock=hand.clock)
    resolver.resolve("www.test", "A", timeout_s=5)
    told = []
    for _ in range(29):
        hand.now += 0.1
        told.append(resolver.resolve("www.test", "A", timeout_s=5).ttl_s)
    assert set(told) == {2.0, 1.0, 0.0}
    assert all(ttl_s <= 3 - 0.1 * (number + 1) + 1e-6 for number, ttl_s in enumerate(told))
    hand.now += 0.2
    assert resolver.shown("www.test", "A") is None
    assert not resolver.resolve("www.test", "A", timeout_s=5).cached


def test_a_flush_forgets_everything_and_what_was_under_way(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    resolver = Resolver([name_server.address], clock=Hand().clock)
    resolver.resolve("www.test", "A", timeout_s=5)
    generation = resolver.cache.generation
    assert resolver.flush() == 1
    assert resolver.shown("www.test", "A") is None
    assert not resolver.resolve("www.test", "A", timeout_s=5).cached
    resolver.flush()
    assert resolver.cache.generation == generation + 2


def test_a_repeated_working_set_is_answered_by_the_cache(name_server: NameServer) -> None:
    names = [f"n{number}.test" for number in range(50)]
    name_server.add(*(f"{name}. 60 IN A 192.0.2.1" for name in names))
    resolver = Resolver([name_server.address], clock=Hand().clock)
    for name in names * 10:
        resolver.resolve(name, "A", timeout_s=5)
    counts = resolver.tally.counts()
    assert (counts["hit"], counts["asked"]) == (450, 50)
    exported = metrics.REGISTRY.get_sample_value("gaia_dns_lookups_total", {"outcome": "asked"})
    assert exported is not None
    assert exported >= 50


def test_the_types_are_kept_apart(name_server: NameServer) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1", "www.test. 60 IN MX 10 mail.test.")
    resolver = Resolver([name_server.address])
    assert resolver.resolve("www.test", "MX", timeout_s=5).records == ("10 mail.test.",)
    assert resolver.resolve("www.test", "A", timeout_s=5).records == ("192.0.2.1",)
    with pytest.raises(NameNotFound):
        resolver.resolve("localhost", "MX", timeout_s=5)
    with pytest.raises(NameNotFound):
        resolver.resolve("127.0.0.1", "MX", timeout_s=5)
    assert asked(name_server, "localhost.") == 0


def test_an_address_has_names(name_server: NameServer) -> None:
    name_server.add("1.2.0.192.in-addr.arpa. 60 IN PTR www.test.")
    resolver = Resolver([name_server.address])
    assert resolver.resolve("192.0.2.1", "PTR", timeout_s=5).records == ("www.test.",)


def test_an_answer_that_is_too_large_is_given_and_not_kept() -> None:
    cache = Cache(10, 300.0, 0.0, lambda: 7.0)
    for size, kept in ((SIZE_LIMIT_BYTES, 1), (SIZE_LIMIT_BYTES + 1, 0)):
        found = Found(("x" * size,), 60.0)
        assert cache.keep(("a.test", "TXT"), found, cache.generation).records == found.records
        assert len(cache) == kept
        cache.flush()

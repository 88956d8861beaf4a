"""Answers shared by a cluster through a real Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import inf

import pytest
import redis

from gaia.errors import NameNotFound, Unreachable
from tasks.cli.server import free_port
from tasks.egress import commons
from tasks.egress.resolver import Answer, Resolver
from tasks.egress.wire import Found
from tasks.scope import Clock
from tests.support.dns import NameServer

Make = Callable[..., Resolver]


class Hand:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    # A Redis on a busy machine takes longer now and then, and would be left alone for a second.
    monkeypatch.setattr(commons, "BOUND_S", 1.0)
    with ExitStack() as stack:

        def made(server: NameServer, url: str, clock: Clock | None = None) -> Resolver:
            found = Resolver([server.address], clock=clock, commons_url=url)
            stack.callback(found.close)
            return found

        yield made


def test_one_worker_asks_and_the_others_know(name_server: NameServer, fresh_url: str, make: Make) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    one, other = make(name_server, fresh_url), make(name_server, fresh_url)
    assert not one.resolve("www.test", "A", timeout_s=5).cached
    found = other.resolve("www.test", "A", timeout_s=5)
    assert found.addresses == ("192.0.2.1",)
    assert 0 < found.ttl_s <= 60
    assert len(name_server.asked) == 1
    assert other.tally.counts()["shared"] == 1


def test_many_names_are_shared_and_read_at_once(name_server: NameServer, fresh_url: str, make: Make) -> None:
    names = [f"n{number}.test" for number in range(1200)]
    name_server.add(*(f"{name}. 60 IN A 192.0.2.1" for name in names))
    one, other = make(name_server, fresh_url), make(name_server, fresh_url)
    one.resolve_many(names, "A", timeout_s=30)
    assert {type(each) for each in other.resolve_many(names, "A", timeout_s=30)} == {Answer}
    assert len(name_server.asked) == 1200
    assert other.tally.counts()["shared"] == 1200


def test_what_does_not_exist_is_shared_for_five_seconds_at_most(
    name_server: NameServer, fresh_url: str, make: Make
) -> None:
    for resolver in (make(name_server, fresh_url), make(name_server, fresh_url)):
        with pytest.raises(NameNotFound):
            resolver.resolve("none.test", "A", timeout_s=5)
    assert len(name_server.asked) == 1
    with redis.Redis.from_url(fresh_url) as client:
        (key,) = client.keys("{gaia:dns}:*none.test")
        assert 0 < client.pttl(key) <= 5000


def test_an_answer_is_shared_for_what_is_left_of_its_time_after_a_long_batch(
    name_server: NameServer, fresh_url: str, make: Make
) -> None:
    name_server.add("a.test. 1 IN A 192.0.2.1")
    name_server.silent.add("s.test.")
    make(name_server, fresh_url).resolve_many(["a.test", "none.test", "s.test"], "A", timeout_s=2)
    with redis.Redis.from_url(fresh_url) as client:
        left_ms = {key: client.pttl(key) for key in client.scan_iter("*.test*")}
    assert [key for key in left_ms if b"a.test" in key] == []
    assert [left <= 3100 for key, left in left_ms.items() if b"none.test" in key] == [True]


def test_a_redis_that_takes_no_writes_costs_no_look_up(name_server: NameServer, fresh_url: str, make: Make) -> None:
    name_server.add("a.test. 60 IN A 192.0.2.1")
    resolver = make(name_server, fresh_url)
    with redis.Redis.from_url(fresh_url) as client:
        client.config_set("maxmemory", 1)
        try:
            assert resolver.resolve("a.test", "A", timeout_s=5).addresses == ("192.0.2.1",)
            assert isinstance(resolver.resolve_many(["b.test"], "A", timeout_s=5)[0], NameNotFound)
            with pytest.raises(Unreachable):
                resolver.flush()
        finally:
            client.config_set("maxmemory", 0)


def test_workers_that_ask_other_servers_share_nothing(name_server: NameServer, fresh_url: str, make: Make) -> None:
    with NameServer() as inner:
        name_server.add("www.test. 60 IN A 192.0.2.1")
        inner.add("www.test. 60 IN A 192.0.2.2")
        assert make(name_server, fresh_url).resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.1",)
        assert make(inner, fresh_url).resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.2",)


def test_a_flush_reaches_the_other_workers_within_a_second(name_server: NameServer, fresh_url: str, make: Make) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    hand = Hand()
    one, other = make(name_server, fresh_url), make(name_server, fresh_url, hand.clock)
    for each in (one, other):
        each.resolve("www.test", "A", timeout_s=5)
    name_server.records["www.test."] = ["www.test. 60 IN A 192.0.2.2"]
    one.flush()
    assert one.resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.2",)
    hand.now += 1
    assert other.resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.2",)


def test_what_was_asked_before_a_flush_is_not_shared_after_it(
    name_server: NameServer, fresh_url: str, make: Make
) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    one, other = make(name_server, fresh_url), make(name_server, fresh_url)
    assert one.commons is not None
    before = one.commons.flushes
    one.resolve("www.test", "A", timeout_s=5)
    other.flush()
    one.commons.write({("late.test", "A"): Found(("192.0.2.9",), 60.0)}, before, inf)
    with pytest.raises(NameNotFound):
        other.resolve("late.test", "A", timeout_s=5)


def test_nonsense_in_redis_is_asked_for_anew(name_server: NameServer, fresh_url: str, make: Make) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    make(name_server, fresh_url).resolve("www.test", "A", timeout_s=5)
    with redis.Redis.from_url(fresh_url) as client:
        for key in client.keys("{gaia:dns}:*www.test"):
            client.set(key, '{"no": "list"}', px=60_000)
    assert make(name_server, fresh_url).resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.1",)


def test_without_redis_names_are_asked_of_servers_and_a_flush_says_so(name_server: NameServer, make: Make) -> None:
    name_server.add("www.test. 60 IN A 192.0.2.1")
    resolver = make(name_server, f"redis://127.0.0.1:{free_port('127.0.0.1')}/0")
    assert resolver.resolve("www.test", "A", timeout_s=5).addresses == ("192.0.2.1",)
    assert resolver.resolve("www.test", "A", timeout_s=5).cached
    with pytest.raises(Unreachable):
        resolver.flush()
    assert not resolver.resolve("www.test", "A", timeout_s=5).cached

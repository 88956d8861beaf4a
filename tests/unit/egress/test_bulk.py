"""Many names at once, against a real name server."""

import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import dns.rcode
import pytest

from gaia.errors import NameNotFound, ResolverFailed
from tasks.egress import bulk as bulk_module
from tasks.egress import wire
from tasks.egress.resolver import Answer, Resolver
from tasks.scope import CancelToken
from tests.support.dns import NameServer
from tests.support.waiting import until

Became = list[Answer | NameNotFound | ResolverFailed]


def kinds(found: Became) -> list[str]:
    return [type(each).__name__ for each in found]


def many(server: NameServer, *names: str, kind: str = "A", timeout_s: float = 10) -> Became:
    resolver = Resolver([server.address])
    try:
        return resolver.resolve_many(names, kind, timeout_s=timeout_s)
    finally:
        resolver.close()


def test_each_name_has_its_own_outcome_in_order(name_server: NameServer) -> None:
    name_server.add("a.test. 60 IN A 192.0.2.1", "c.test. 60 IN CNAME a.test.")
    name_server.rcodes["bad.test."] = dns.rcode.SERVFAIL
    found = many(name_server, "c.test", "none.test", "127.1", "bad.test", "a b", "a.test", "A.test.")
    assert kinds(found) == ["Answer", "NameNotFound", "Answer", "ResolverFailed", "NameNotFound", "Answer", "Answer"]
    answers = [each.addresses for each in found if isinstance(each, Answer)]
    assert answers == [("192.0.2.1",), ("127.0.0.1",), ("192.0.2.1",), ("192.0.2.1",)]
    assert [name for name, _ in name_server.asked].count("a.test.") == 1


def test_thousands_of_names_are_asked_together_and_then_cached(name_server: NameServer) -> None:
    names = [f"n{number}.test" for number in range(2000)]
    name_server.add(*(f"{name}. 60 IN A 192.0.2.1" for name in names))
    resolver = Resolver([name_server.address], cache_entries=5000)
    assert {type(each) for each in resolver.resolve_many(names, "A", timeout_s=30)} == {Answer}
    # A machine at work may answer so late that a name is asked for again.
    asked = len(name_server.asked)
    assert len(set(name_server.asked)) == 2000
    again = resolver.resolve_many(names, "A", timeout_s=30)
    assert all(isinstance(each, Answer) and each.cached for each in again)
    assert len(name_server.asked) == asked
    resolver.close()


def test_a_silent_name_costs_its_bound_and_no_other_name(name_server: NameServer) -> None:
    name_server.add("a.test. 60 IN A 192.0.2.1")
    name_server.silent.add("s.test.")
    found = many(name_server, "s.test", "a.test", timeout_s=0.5)
    assert kinds(found) == ["ResolverFailed", "Answer"]
    assert "no answer within" in str(found[0])


def test_many_dead_names_keep_out_none_behind_them(name_server: NameServer) -> None:
    dead = [f"d{number}.test" for number in range(600)]
    name_server.silent.update(f"{name}." for name in dead)
    name_server.add("a.test. 60 IN A 192.0.2.1", "b.test. 60 IN A 192.0.2.2")
    resolver = Resolver([name_server.address])
    resolver._bulk._try_s = 0.1
    token = CancelToken()
    found = finished(lambda: resolver.resolve_many([*dead, "a.test"], "A", timeout_s=120, cancelled=token))
    until(lambda: len(name_server.asked) > 50, what="the first dead names")
    (other,) = resolver.resolve_many(["b.test"], "A", timeout_s=30)
    assert isinstance(other, Answer)
    until(lambda: len(resolver.cache) == 2, what="the name behind the dead ones", timeout_s=30)
    token.set()
    assert kinds(found())[-1] == "Answer"
    resolver.close()


def test_what_a_cancelled_call_wanted_is_asked_for_no_longer(name_server: NameServer) -> None:
    name_server.silent.add("s.test.")
    resolver = Resolver([name_server.address])
    token = CancelToken()
    found = finished(lambda: resolver.resolve_many(["s.test"], "A", timeout_s=600, cancelled=token))
    until(lambda: name_server.asked, what="the question")
    token.set()
    assert kinds(found()) == ["ResolverFailed"]
    until(lambda: not resolver._flights, what="its end")
    resolver.close()


def test_a_cancel_ends_the_wait_for_what_another_call_asked(name_server: NameServer) -> None:
    name_server.silent.add("s.test.")
    resolver = Resolver([name_server.address])
    tokens = (CancelToken(), CancelToken())
    first = finished(lambda: resolver.resolve_many(["s.test"], "A", timeout_s=600, cancelled=tokens[0]))
    until(lambda: name_server.asked, what="the question")
    second = finished(lambda: resolver.resolve_many(["s.test"], "A", timeout_s=600, cancelled=tokens[1]))
    until(lambda: resolver.tally.counts()["joined"], what="the second call")
    tokens[1].set()
    assert kinds(second()) == ["ResolverFailed"]
    tokens[0].set()
    first()
    resolver.close()


def test_a_call_with_less_time_does_not_fail_the_one_that_waits_with_it(name_server: NameServer) -> None:
    name_server.silent.add("s.test.")
    resolver = Resolver([name_server.address])
    resolver._bulk._try_s = 0.1
    token = CancelToken()
    first = finished(lambda: resolver.resolve_many(["s.test"], "A", timeout_s=600, cancelled=token))
    until(lambda: name_server.asked, what="the question")
    second = finished(lambda: resolver.resolve_many(["s.test"], "A", timeout_s=60))
    until(lambda: resolver.tally.counts()["joined"], what="the second call")
    token.set()
    assert kinds(first()) == ["ResolverFailed"]
    until(lambda: resolver.tally.counts()["asked"] == 2, what="the turn of the second call")
    name_server.add("s.test. 60 IN A 192.0.2.1")
    name_server.silent.clear()
    assert kinds(second()) == ["Answer"]
    resolver.close()


@pytest.mark.parametrize("broken", ["thread", "pipe", "epoll"])
def test_a_resolver_that_cannot_start_says_so_and_starts_when_it_can(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fails(*_: object) -> None:
        raise (RuntimeError("can't start new thread") if broken == "thread" else OSError(24, "Too many open files"))

    owner, name = {"thread": (threading.Thread, "start"), "pipe": (os, "pipe2"), "epoll": (select, "epoll")}[broken]
    name_server.add("a.test. 60 IN A 192.0.2.1")
    resolver = Resolver([name_server.address])
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        (found,) = resolver.resolve_many(["a.test"], "A", timeout_s=5)
    assert "cannot start" in str(found)
    assert kinds(resolver.resolve_many(["a.test"], "A", timeout_s=5)) == ["Answer"]
    resolver.close()


@pytest.mark.parametrize("place", ["_drain", "read"])
def test_after_a_fault_in_the_thread_the_next_question_is_answered(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    name_server.add("a.test. 60 IN A 192.0.2.1")
    resolver = Resolver([name_server.address])
    with monkeypatch.context() as patch:
        patch.setattr({"_drain": resolver._bulk, "read": wire}[place], place, fails)
        (found,) = resolver.resolve_many(["a.test"], "A", timeout_s=5)
    assert "ZeroDivisionError" in str(found)
    assert kinds(resolver.resolve_many(["a.test"], "A", timeout_s=5)) == ["Answer"]
    resolver.close()


def test_a_fault_beside_the_thread_is_a_failure_too(name_server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    resolver = Resolver([name_server.address])
    monkeypatch.setattr(resolver._stub, "ask", fails)
    (found,) = resolver.resolve_many(["single"], "A", timeout_s=5)
    assert "ZeroDivisionError" in str(found)
    assert not resolver._flights
    resolver.close()


def test_a_lost_question_is_asked_again(name_server: NameServer) -> None:
    name_server.add("s.test. 60 IN A 192.0.2.1")
    name_server.silent.add("s.test.")
    resolver = Resolver([name_server.address])
    resolver._bulk._try_s = 0.2
    found = finished(lambda: resolver.resolve_many(["s.test"], "A", timeout_s=10))
    until(lambda: name_server.asked, what="the first question")
    name_server.silent.clear()
    assert kinds(found()) == ["Answer"]
    resolver.close()


def test_a_truncated_answer_is_fetched_by_tcp(name_server: NameServer) -> None:
    name_server.add("big.test. 60 IN A 192.0.2.1")
    name_server.truncated.add("big.test.")
    assert kinds(many(name_server, "big.test")) == ["Answer"]
    assert ("big.test.", "A by tcp") in name_server.asked


def test_a_malformed_answer_is_a_failure(name_server: NameServer) -> None:
    name_server.add("bad.test. 60 IN A 192.0.2.1")
    name_server.garbled["bad.test."] = b"\0\5\0\0\0\0\xff\xff"
    assert kinds(many(name_server, "bad.test")) == ["ResolverFailed"]


def test_what_is_no_name_and_a_loop_of_aliases_fail_alone_and_nothing_is_kept(name_server: NameServer) -> None:
    name_server.add("one.test. 60 IN CNAME two.test.", "two.test. 60 IN CNAME one.test.", "a.test. 60 IN A 192.0.2.1")
    resolver = Resolver([name_server.address])
    wanted = ("x" * 64 + ".test", "a." * 127 + "test", "", "ü" * 60 + ".test", "one.test", "a.test")
    found = resolver.resolve_many(wanted, "A", timeout_s=10)
    assert kinds(found) == [*["NameNotFound"] * 4, "ResolverFailed", "Answer"]
    assert len(resolver.cache) == 1
    resolver.close()


def test_the_next_server_is_asked_when_one_is_away(name_server: NameServer) -> None:
    name_server.add("a.test. 60 IN A 192.0.2.1")
    with NameServer() as gone:
        address = gone.address
    resolver = Resolver([address, name_server.address])
    assert kinds(resolver.resolve_many(["a.test"], "A", timeout_s=10)) == ["Answer"]
    resolver.close()


def test_without_any_server_every_name_fails_at_once() -> None:
    resolver = Resolver(resolv_conf=Path("/nonexistent"))
    assert kinds(resolver.resolve_many(["a.test", "127.1"], "A", timeout_s=10)) == ["ResolverFailed", "Answer"]


def test_a_cancel_ends_the_wait(name_server: NameServer) -> None:
    name_server.silent.add("s.test.")
    resolver, token = Resolver([name_server.address]), CancelToken()
    found = finished(lambda: resolver.resolve_many(["s.test"], "A", timeout_s=60, cancelled=token))
    until(lambda: name_server.asked, what="the question")
    token.set()
    assert kinds(found()) == ["ResolverFailed"]
    resolver.close()


def test_a_closed_resolver_fails_what_is_under_way_and_what_comes(name_server: NameServer) -> None:
    name_server.silent.add("s.test.")
    resolver = Resolver([name_server.address])
    found = finished(lambda: resolver.resolve_many(["s.test"], "A", timeout_s=60))
    until(lambda: name_server.asked, what="the question")
    resolver.close()
    assert kinds(found()) == ["ResolverFailed"]
    assert kinds(resolver.resolve_many(["t.test"], "A", timeout_s=60)) == ["ResolverFailed"]


def test_no_socket_is_used_for_long(name_server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "SOCKET_AGE_S", 0.0)
    names = [f"n{number}.test" for number in range(20)]
    name_server.add(*(f"{name}. 60 IN A 192.0.2.1" for name in names))
    resolver = Resolver([name_server.address])
    before: list[socket.socket] = []
    for _ in range(2):
        resolver.flush()
        assert {type(each) for each in resolver.resolve_many(names, "A", timeout_s=30)} == {Answer}
        now = list(resolver._bulk._sockets.values())
        assert not any(each is other for each in now for other in before)
        assert len(now) <= bulk_module.SOCKETS
        before = now
    resolver.close()


def test_sockets_are_replaced_after_their_life(name_server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "SOCKET_LIFE", 5)
    names = [f"n{number}.test" for number in range(200)]
    name_server.add(*(f"{name}. 60 IN A 192.0.2.1" for name in names))
    resolver = Resolver([name_server.address])
    assert {type(each) for each in resolver.resolve_many(names, "A", timeout_s=30)} == {Answer}
    assert len(resolver._bulk._sockets) <= bulk_module.SOCKETS
    resolver.close()


def finished(
    act: Callable[[], Became],
) -> Callable[[], Became]:
    """Do it in a thread; give what waits for its end."""
    done: list[Became] = []
    thread = threading.Thread(target=lambda: done.append(act()))
    thread.start()

    def wait() -> Became:
        thread.join(20)
        return done[0]

    return wait

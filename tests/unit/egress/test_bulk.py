"""Many names at once, against a real name server."""

import threading
from collections.abc import Callable
from pathlib import Path

import dns.rcode
import pytest

from gaia.errors import NameNotFound, ResolverFailed
from tasks.egress import bulk as bulk_module
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


def test_thousands_of_names_are_asked_once_each_and_then_cached(name_server: NameServer) -> None:
    names = [f"n{number}.test" for number in range(2000)]
    name_server.add(*(f"{name}. 60 IN A 192.0.2.1" for name in names))
    resolver = Resolver([name_server.address], cache_entries=5000)
    assert {type(each) for each in resolver.resolve_many(names, "A", timeout_s=30)} == {Answer}
    again = resolver.resolve_many(names, "A", timeout_s=30)
    assert all(isinstance(each, Answer) and each.cached for each in again)
    assert len(name_server.asked) == 2000
    resolver.close()


def test_a_silent_name_costs_its_bound_and_no_other_name(name_server: NameServer) -> None:
    name_server.add("a.test. 60 IN A 192.0.2.1")
    name_server.silent.add("s.test.")
    found = many(name_server, "s.test", "a.test", timeout_s=0.5)
    assert kinds(found) == ["ResolverFailed", "Answer"]
    assert "no answer within" in str(found[0])


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

"""Circuits that keep requests out are listed by name, by an index that forgets those that are closed."""

import time
from collections.abc import Iterator

import pytest
import redis

from gaia import Gaia
from gaia.store import circuits, keys
from tasks.limits.protocols import Away, Passage, Rules
from tasks.limits.reach import Reach
from tasks.limits.shared import SharedBreaker
from tests.support.waiting import until

LONG = Rules(failure_threshold=2, open_s=30.0, success_threshold=1)
SHORT = Rules(failure_threshold=1, open_s=0.05, success_threshold=1)


@pytest.fixture
def breaker(fresh_url: str) -> Iterator[SharedBreaker]:
    reach = Reach.to(fresh_url)
    yield SharedBreaker(reach)
    reach.close()


@pytest.fixture
def g(fresh_url: str) -> Iterator[Gaia]:
    with Gaia(fresh_url) as found:
        yield found


def fail(breaker: SharedBreaker, name: str, rules: Rules) -> None:
    for _ in range(rules.failure_threshold):
        breaker.failed(Passage(name, rules))


def half_opened(g: Gaia) -> bool:
    return [each.state for each in g.limits.circuits()] == ["half_open"]


def test_an_open_circuit_is_listed_with_its_times(breaker: SharedBreaker, g: Gaia) -> None:
    before = time.time()
    fail(breaker, "b.example", LONG)
    (found,) = g.limits.circuits()
    assert (found.name, found.state) == ("b.example", "open")
    assert before - 1 <= found.since <= time.time() + 1
    assert found.until == pytest.approx(found.since + LONG.open_s)


def test_a_closed_one_is_not_listed_whatever_it_counts(breaker: SharedBreaker, g: Gaia) -> None:
    breaker.failed(Passage("a.example", LONG))
    assert g.limits.circuits() == []


def test_one_whose_time_has_passed_is_half_open_until_a_probe_closes_it(
    breaker: SharedBreaker, g: Gaia, fresh_url: str
) -> None:
    fail(breaker, "a.example", SHORT)
    until(lambda: half_opened(g), 10, what="a half-open circuit")
    (found,) = g.limits.circuits()
    assert (found.name, found.until) == ("a.example", 0.0)
    probe = breaker.enter("a.example", SHORT, if_away=Away.FAIL_CLOSED)
    assert isinstance(probe, Passage)
    breaker.succeeded(probe)
    assert g.limits.circuits() == []
    with redis.Redis.from_url(fresh_url) as client:
        assert not client.exists(keys.CIRCUITS)


def test_probes_that_fail_leave_the_time_since_when(breaker: SharedBreaker, g: Gaia) -> None:
    fail(breaker, "a.example", SHORT)
    until(lambda: half_opened(g), 10, what="a half-open circuit")
    (first,) = g.limits.circuits()
    probe = breaker.enter("a.example", LONG, if_away=Away.FAIL_CLOSED)
    assert isinstance(probe, Passage)
    breaker.failed(probe)
    (again,) = g.limits.circuits()
    assert (again.state, again.since) == ("open", first.since)


def test_a_host_that_asked_for_time_is_listed_until_then(breaker: SharedBreaker, g: Gaia) -> None:
    breaker.hold("slow.example", 30.0)
    (found,) = g.limits.circuits()
    assert (found.name, found.state) == ("slow.example", "held")
    assert found.until == pytest.approx(found.since + 30.0)


def test_a_hold_that_has_passed_is_gone(breaker: SharedBreaker, g: Gaia) -> None:
    breaker.hold("slow.example", 0.02)
    until(lambda: g.limits.circuits() == [], 10, what="the end of the hold")


def test_one_that_expired_is_forgotten_with_the_next_that_opens(
    breaker: SharedBreaker, g: Gaia, fresh_url: str
) -> None:
    with redis.Redis.from_url(fresh_url) as client:
        client.zadd(keys.CIRCUITS, {keys.circuit("old.example"): 1})
        fail(breaker, "b.example", LONG)
        fail(breaker, "a.example", LONG)
        assert client.zcard(keys.CIRCUITS) == 2
        assert 0 < client.ttl(keys.CIRCUITS) <= client.ttl(keys.circuit("b.example"))
    assert [each.name for each in g.limits.circuits()] == ["a.example", "b.example"]


def test_no_more_are_read_than_the_bound(breaker: SharedBreaker, g: Gaia, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits, "MOST", 2)
    for name in ("a.example", "b.example", "c.example"):
        fail(breaker, name, LONG)
    assert [each.name for each in g.limits.circuits()] == ["b.example", "c.example"]

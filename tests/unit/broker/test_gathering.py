"""Ends that travel together."""

from collections.abc import Iterator

import pytest
import redis
from kombu.asynchronous import Hub

from tasks.broker import gathering
from tasks.broker.gathering import Gathering
from tasks.broker.holder import MANY
from tests.unit.broker.conftest import Broker, text


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    yield found
    found.close()


def _holding(broker: Broker, client: "redis.Redis", count: int, held_s: float) -> Gathering:
    """Hold so many calls, such as are held for so long; a turn is under way."""
    client.lpush("q", *(text() for _ in range(count)))
    broker.consume(prefetch=count).receive(count)
    broker.holder._held_s = held_s
    found = Gathering(broker.holder)
    found.sent()
    return found


def test_turns_are_apart_by_a_twentieth_of_the_time_that_calls_are_held(broker: Broker, client: "redis.Redis") -> None:
    _holding(broker, client, MANY, held_s=0.04)
    assert broker.holder.pace_s() == pytest.approx(0.002)


def test_while_many_long_calls_are_held_the_next_turn_waits(
    broker: Broker, client: "redis.Redis", hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "LONGEST_S", 3600.0)
    found = _holding(broker, client, MANY, held_s=1e6)
    assert not found.holds_back()
    found.answered(hub, int)
    assert found.holds_back()
    assert len(hub.timer) == 1


def test_the_loop_wakes_to_send_what_was_held_back(broker: Broker, client: "redis.Redis", hub: Hub) -> None:
    found = _holding(broker, client, MANY, held_s=1e6)
    found.sent()
    woken: list[bool] = []
    found.answered(hub, lambda: woken.append(found.holds_back()))
    while not woken:
        hub.run_once()
    assert woken == [False]


@pytest.mark.parametrize(("count", "held_s"), [(MANY - 1, 1e6), (MANY, 0.0)])
def test_nothing_waits_where_calls_are_few_or_short(
    broker: Broker, client: "redis.Redis", hub: Hub, count: int, held_s: float
) -> None:
    found = _holding(broker, client, count, held_s)
    found.answered(hub, int)
    assert not found.holds_back()
    assert len(hub.timer) == 0


def test_without_a_loop_that_could_wake_nothing_waits(broker: Broker, client: "redis.Redis") -> None:
    found = _holding(broker, client, MANY, held_s=1e6)
    found.answered(None, int)
    assert not found.holds_back()

"""Ends that travel together while the slots have work."""

from collections.abc import Iterator

import pytest
import redis
from kombu.asynchronous import Hub

from tasks.broker import gathering
from tasks.broker.gathering import Gathering
from tests.unit.broker.conftest import Broker, text


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    yield found
    found.close()


@pytest.fixture
def full(broker: Broker, client: "redis.Redis") -> Broker:
    """Holds five messages, three of which wait for a slot."""
    client.lpush("q", *(text(each) for each in "abcde"))
    broker.consume(prefetch=5).receive(5)
    for each in "cde":
        broker.holder.wait(each)
    return broker


@pytest.fixture
def gathered(full: Broker, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Gathering:
    """A turn was sent and answered, and what follows is within its time."""
    monkeypatch.setattr(gathering, "GATHER_S", 3600.0)
    found = Gathering(full.holder)
    found.sent()
    found.answered(hub, int)
    return found


def test_an_end_waits_for_others_while_more_than_twice_as_many_wait_for_a_slot(
    gathered: Gathering, full: Broker
) -> None:
    full.holder.end("a")
    assert gathered.holds_back()
    full.holder.end("b")  # three wait, two have ended
    assert not gathered.holds_back()


def test_nothing_waits_when_a_slot_may_be_without_work(gathered: Gathering, full: Broker) -> None:
    for each in "cde":
        full.holder.start(each)
    assert not gathered.holds_back()


def test_the_loop_wakes_to_send_what_was_held_back(full: Broker, hub: Hub) -> None:
    found = Gathering(full.holder)
    found.sent()
    woken: list[bool] = []
    found.answered(hub, lambda: woken.append(found.holds_back()))
    while not woken:
        hub.run_once()
    assert woken == [False]


@pytest.mark.parametrize("is_sent", [True, False])
def test_nothing_is_held_back_unless_a_wake_is_planned(full: Broker, hub: Hub, is_sent: bool) -> None:
    found = Gathering(full.holder)
    if is_sent:
        found.sent()
    found.answered(None if is_sent else hub, int)
    assert not found.holds_back()
    assert len(hub.timer) == 0

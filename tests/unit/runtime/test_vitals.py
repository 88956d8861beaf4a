"""Alive and ready, told by a clock that the test holds; with real workers: tests/integration/test_endpoint.py."""

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.broker.channel import Fetching
from tasks.runtime import identity
from tasks.runtime.pool import Pool
from tasks.runtime.vitals import FETCH_BOUND_S, LOOP_BOUND_S, Vitals
from tasks.scope import Clock
from tests.support.descriptors import said


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Channel(Fetching):
    def __init__(self, queues: list[str], room: int) -> None:
        self.active = queues
        self.answered_at = 100.0
        self.holder: Any = SimpleNamespace(room=lambda: room)
        self.qos: Any = SimpleNamespace(can_consume=lambda: True)

    @property
    def active_queues(self) -> set[str]:
        return set(self.active)


def worker(channel: Channel | None = None, *, connected: bool = True) -> Any:
    channel = channel or Channel(["api"], 1)
    consumer = SimpleNamespace(
        connection=object() if connected else None, task_consumer=SimpleNamespace(channel=channel), pool=Pool(1)
    )
    return SimpleNamespace(consumer=consumer)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def vitals(time: Time) -> Vitals:
    identity.begin("api@host")
    found = Vitals(Clock(monotonic=time))
    found.attach(worker())
    return found


def test_without_a_descriptor_for_the_timer_of_its_loop_a_worker_starts_all_the_same() -> None:
    script = """
from kombu.asynchronous import Hub, set_event_loop
from tasks.runtime.vitals import Vitals

vitals, loop = Vitals(), Hub()
set_event_loop(loop)
with free_descriptors(0):
    vitals.started()
print(*(each.__name__ for each in loop.on_tick))
"""
    assert said(script) == ["_turn"]


def test_a_worker_is_ready_once_it_has_started_until_it_ends(vitals: Vitals) -> None:
    assert vitals.unready() == ["the worker has not started yet"]
    vitals.started()
    assert vitals.unready() == []
    vitals.ending()
    assert vitals.unready() == ["the worker ends"]
    assert vitals.dead() == []


def test_a_loop_that_stands_still_is_dead(vitals: Vitals, time: Time) -> None:
    vitals.started()
    time.now += LOOP_BOUND_S + 1
    assert vitals.dead() == ["the loop has not turned for 16 s"] == vitals.unready()
    vitals._turn()
    assert vitals.dead() == []


def test_a_worker_that_connects_anew_lives_and_is_not_ready(vitals: Vitals, time: Time) -> None:
    vitals.started()
    vitals.attach(worker(connected=False))
    time.now += 3600
    assert vitals.dead() == []
    assert vitals.loop_age_s() == 0
    assert vitals.unready() == ["Redis is away: the worker connects anew"]


def test_a_worker_with_a_free_slot_that_is_not_answered_is_not_ready(vitals: Vitals, time: Time) -> None:
    vitals.started()
    time.now += FETCH_BOUND_S + 1
    assert vitals.unready() == ["nothing was fetched or waited for for 7 s"]


def test_a_worker_whose_slots_are_all_taken_asks_for_nothing_and_is_ready(vitals: Vitals, time: Time) -> None:
    vitals.attach(worker(Channel(["api"], 0)))
    vitals.started()
    time.now += FETCH_BOUND_S + 1
    assert vitals.unready() == []


@pytest.mark.parametrize("queues", [[], ["gaia.node.api@host"], ["api@host.celery.pidbox"]])
def test_a_worker_that_consumes_no_shared_queue_is_not_ready(vitals: Vitals, queues: list[str]) -> None:
    vitals.attach(worker(Channel(queues, 1)))
    vitals.started()
    assert vitals.unready() == ["no queue is consumed"]

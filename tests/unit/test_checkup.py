"""The reports of subsystems: shared, bounded, and the worst of them counts."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gaia.contracts.base import Call, Result, contract
from gaia.errors import NotConfigured
from tasks import checkup
from tasks.checkup import Checkup, worst
from tasks.scope import Clock, Scope
from tasks.wiring import HANDLERS, Handler


@contract
class Said(Result):
    """How a test is."""

    status: str
    reasons: tuple[str, ...] = ()


@contract
class Health(Call[Said], operation="checkup_test.health"):
    """Say how a test is."""


class Subsystem:
    def __init__(self) -> None:
        self.looks = 0
        self.answer: Any = Said("healthy")
        self.release = threading.Event()
        self.release.set()

    def health(self, _: Any, __: Scope) -> Any:
        self.looks += 1
        self.release.wait(30)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def subsystem(monkeypatch: pytest.MonkeyPatch) -> Iterator[Subsystem]:
    found = Subsystem()
    monkeypatch.setitem(HANDLERS, "checkup_test.health", Handler(Health, found.health))
    yield found
    found.release.set()


def report(*, unready: tuple[str, ...] = (), queues: tuple[str, ...] = ("checkup_test", "none")) -> Any:
    return Checkup(lambda: queues, lambda: list(unready), Clock()).report()


def test_a_subsystem_says_how_it_is_and_one_without_a_word_is_well(subsystem: Subsystem) -> None:
    subsystem.answer = Said("degraded", ("half of it is away",))
    found = report()
    assert (found["status"], found["reasons"]) == ("degraded", ["checkup_test: half of it is away"])
    assert found["subsystems"]["none"] == {"status": "healthy", "reasons": []}


def test_findings_of_the_older_contract_are_reasons_too(subsystem: Subsystem) -> None:
    subsystem.answer = SimpleNamespace(status="degraded", findings=("one",))
    assert report()["reasons"] == ["checkup_test: one"]


def test_a_worker_that_does_not_consume_is_unhealthy(subsystem: Subsystem) -> None:
    assert report(unready=("no queue is consumed",))["status"] == "unhealthy"


def test_a_look_is_shared_for_a_while(subsystem: Subsystem) -> None:
    time = SimpleNamespace(now=0.0)
    found = Checkup(lambda: ["checkup_test"], list, Clock(monotonic=lambda: time.now))
    found.report()
    found.report()
    assert subsystem.looks == 1
    time.now += checkup.KEPT_S + 1
    found.report()
    assert subsystem.looks == 2


def test_a_look_that_hangs_degrades_and_is_not_begun_twice(
    subsystem: Subsystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "BOUND_S", 0.05)
    subsystem.release.clear()
    found = Checkup(lambda: ["checkup_test"], list, Clock())
    assert found.report()["subsystems"]["checkup_test"]["status"] == "degraded"
    assert "has not said how it is" in found.report()["reasons"][0]
    assert subsystem.looks == 1


def test_a_failure_is_unhealthy_and_a_foreign_one_shows_its_kind_alone(subsystem: Subsystem) -> None:
    subsystem.answer = NotConfigured("GAIA_X", "is not set")
    assert report()["status"] == "unhealthy"
    subsystem.answer = RuntimeError("token=hunter22")
    assert report()["reasons"] == ["checkup_test: it failed with RuntimeError"]


def test_the_worst_counts() -> None:
    assert worst([]) == "healthy"
    assert worst([{"status": "degraded"}, {"status": "unhealthy"}, {"status": "healthy"}]) == "unhealthy"

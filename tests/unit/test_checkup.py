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


@pytest.mark.parametrize(
    "told",
    [
        SimpleNamespace(status="degraded", reasons=("a: one",)),
        SimpleNamespace(status="degraded", findings=("a: one",)),
        SimpleNamespace(
            state="degraded",
            checks=(SimpleNamespace(name="a", ok=False, detail="one"), SimpleNamespace(name="b", ok=True, detail="")),
        ),
    ],
)
def test_subsystems_say_it_in_their_own_words(subsystem: Subsystem, told: Any) -> None:
    subsystem.answer = told
    assert report()["subsystems"]["checkup_test"] == {"status": "degraded", "reasons": ["a: one"]}


@pytest.mark.parametrize(("healthy", "reason", "status"), [(True, "", "healthy"), (False, "no Chromium", "unhealthy")])
def test_one_that_only_says_yes_or_no_is_read_too(
    subsystem: Subsystem, healthy: bool, reason: str, status: str
) -> None:
    subsystem.answer = SimpleNamespace(healthy=healthy, reason=reason)
    found = report()["subsystems"]["checkup_test"]
    assert found == {"status": status, "reasons": [reason] if reason else []}


def test_a_dear_look_is_repeated_less_often(subsystem: Subsystem) -> None:
    time = SimpleNamespace(now=0.0)

    def health(_: Any, __: Scope) -> Any:
        subsystem.looks += 1
        time.now += 0.3
        return Said("healthy")

    HANDLERS["checkup_test.health"] = Handler(Health, health)
    found = Checkup(lambda: ["checkup_test"], list, Clock(monotonic=lambda: time.now))
    found.report()
    time.now += 25
    found.report()
    assert subsystem.looks == 1
    time.now += 10
    found.report()
    assert subsystem.looks == 2


def test_while_a_look_takes_long_the_last_finding_stands(subsystem: Subsystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "BOUND_S", 0.05)
    time = SimpleNamespace(now=0.0)
    found = Checkup(lambda: ["checkup_test"], list, Clock(monotonic=lambda: time.now))
    found.report()
    subsystem.release.clear()
    time.now += checkup.KEPT_S + 1
    assert found.report()["status"] == "healthy"
    time.now += checkup.LOOK_S + 1
    assert found.report()["status"] == "degraded"


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


def test_what_all_subsystems_need_degrades_each_of_them(subsystem: Subsystem) -> None:
    subsystem.answer = Said("unhealthy", ("it is broken",))
    found = Checkup(lambda: ["checkup_test", "none"], list, Clock(), lambda: ["no bodies"]).report()
    assert found["status"] == "unhealthy"
    assert found["subsystems"] == {
        "checkup_test": {"status": "unhealthy", "reasons": ["it is broken", "no bodies"]},
        "none": {"status": "degraded", "reasons": ["no bodies"]},
    }
    assert found["reasons"] == ["checkup_test: it is broken", "checkup_test: no bodies", "none: no bodies"]


def test_a_look_at_what_all_need_that_fails_is_no_failure_of_the_report() -> None:
    def fails() -> list[str]:
        raise OSError

    found = Checkup(lambda: ["none"], list, Clock(), fails).report()
    assert found["subsystems"]["none"]["status"] == "unhealthy"

"""Events to series, by a clock that the test holds."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tasks.monitor import calls as module
from tasks.monitor import series
from tasks.monitor.calls import PURGED_S, TIMEOUT_S, Calls
from tasks.monitor.series import OTHER, Book
from tasks.scope import Clock


class Heard:
    def __init__(self) -> None:
        self.book = Book()
        self.now = 1000.0
        self.calls = Calls(self.book, Clock(monotonic=lambda: self.now))

    def task(self, kind: str, uuid: str = "1", *, at: float = 100.0, worker: str = "w1@vm", **fields: Any) -> None:
        event = {"type": f"task-{kind}", "uuid": uuid, "timestamp": at, "hostname": worker, **fields}
        self.calls.hear(event)

    def value(self, name: str, /, **labels: str) -> float | None:
        found = [
            each.value
            for family in text_string_to_metric_families(self.book.text().decode())
            for each in family.samples
            if each.name == name and labels.items() <= each.labels.items()
        ]
        return sum(found) if found else None


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_a_run_is_counted_at_each_step_under_its_whole_worker(heard: Heard) -> None:
    for worker in ("w1@vm", "w2@vm"):
        heard.task("received", worker, worker=worker, name="files.read")
        heard.task("started", worker, worker=worker, waited=0.2)
        heard.task("succeeded", worker, worker=worker, runtime=0.5)
    own = {"name": "files.read", "hostname": "vm", "queue_name": "files"}
    for state in ("received", "started", "succeeded"):
        assert heard.value(f"celery_task_{state}_total", **own, worker="w1@vm") == 1
        assert heard.value(f"celery_task_{state}_total", **own) == 2
    assert heard.value("celery_task_retried_total", **own, worker="w1@vm") == 0
    assert heard.value("celery_task_runtime_count", **own, outcome="succeeded") == 2
    assert heard.value("celery_task_queue_wait_time_sum", **own) == pytest.approx(0.4)
    assert heard.calls.under_way == 0


@pytest.mark.parametrize("kind", ["failed", "retried"])
def test_a_failure_has_a_run_time_too(heard: Heard, kind: str) -> None:
    heard.task("received", name="api.request")
    heard.task("started", at=100.0)
    heard.task(kind, at=102.5, exception="ConnectFailed('host', 'token=hunter22')")
    assert heard.value("celery_task_runtime_sum", outcome=kind) == 2.5
    assert b"hunter22" not in heard.book.text()
    if kind == "failed":
        assert heard.value("celery_task_failed_total", exception="ConnectFailed") == 1


@pytest.mark.parametrize("text", ["secret value", "https://me:pw@host/", "", "x" * 500, "'quoted'(", None])
def test_an_exception_without_a_class_is_other(heard: Heard, text: str | None) -> None:
    heard.task("received", name="api.request")
    heard.task("failed", exception=text)
    expected = OTHER if text is not None else "None"
    assert heard.value("celery_task_failed_total", exception=expected) == 1


def test_a_stock_task_waits_from_what_its_producer_says_and_a_retry_does_not_count(heard: Heard) -> None:
    heard.task("sent", at=100.0, worker="gen7@web", name="mail.send", queue="mail")
    heard.task("received", at=101.0, name="mail.send")
    heard.task("started", at=103.0)
    heard.task("retried", at=104.0, exception="E()")
    heard.task("received", at=110.0, name="mail.send")
    heard.task("started", at=111.0)
    heard.task("succeeded", at=112.0, runtime=1.0)
    assert heard.value("celery_task_sent_total", queue_name="mail", hostname="web", worker="") == 1
    assert heard.value("celery_task_queue_wait_time_count", queue_name="mail") == 1
    assert heard.value("celery_task_queue_wait_time_sum", queue_name="mail") == 3.0


def test_an_end_whose_beginning_was_missed_is_counted_under_other(heard: Heard) -> None:
    heard.task("succeeded", runtime=0.5)
    assert heard.value("celery_task_succeeded_total", name=OTHER) == 1


BROKEN = {"type": "task-failed", "uuid": "1", "timestamp": "x", "hostname": "h"}


@pytest.mark.parametrize("event", [None, 1, [], "x", {}, {"type": 3}, {"type": "task-started"}, BROKEN])
def test_what_is_no_event_is_counted_and_changes_nothing(heard: Heard, event: Any) -> None:
    heard.calls.hear(event)
    assert heard.calls.under_way == 0
    assert heard.value("celery_worker_up") is None


def test_tasks_that_never_end_are_bounded(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNDER_WAY", 10)
    for number in range(100):
        heard.task("received", str(number), name="api.request")
    assert heard.calls.under_way == 10


def test_a_silent_worker_is_down_and_later_forgotten(heard: Heard) -> None:
    heard.calls.hear({"type": "worker-heartbeat", "hostname": "w1@vm", "active": 3})
    heard.calls.lives("w2@vm")
    assert heard.value("celery_worker_tasks_active", worker="w1@vm") == 3
    heard.now += TIMEOUT_S + 1
    heard.calls.lives("w2@vm")
    heard.calls.look()
    assert heard.value("celery_worker_up", worker="w1@vm") == 0
    assert heard.value("celery_worker_tasks_active", worker="w1@vm") == 0
    assert heard.value("celery_worker_up", worker="w2@vm") == 1
    heard.now += PURGED_S
    heard.calls.lives("w2@vm")
    heard.calls.look()
    assert heard.value("celery_worker_up", worker="w1@vm") is None


def test_who_died_while_redis_was_away_is_not_forgotten_before_it_can_be_told(heard: Heard) -> None:
    heard.calls.lives("w1@vm")
    heard.now += PURGED_S + 1
    heard.calls.look(blind=True)
    heard.now += TIMEOUT_S
    heard.calls.look()
    assert heard.value("celery_worker_up", worker="w1@vm") == 0
    heard.now += PURGED_S
    heard.calls.look()
    assert heard.value("celery_worker_up", worker="w1@vm") is None


def test_a_worker_that_says_goodbye_is_down_at_once_and_back_when_it_is(heard: Heard) -> None:
    heard.calls.hear({"type": "worker-online", "hostname": "w1@vm"})
    heard.calls.hear({"type": "worker-offline", "hostname": "w1@vm"})
    assert heard.value("celery_worker_up", worker="w1@vm") == 0
    heard.calls.hear({"type": "worker-heartbeat", "hostname": "w1@vm"})
    assert heard.value("celery_worker_up", worker="w1@vm") == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "x", [1]])
def test_what_is_no_finite_number_is_counted_as_odd_and_changes_nothing(heard: Heard, value: object) -> None:
    heard.calls.hear({"type": "worker-heartbeat", "hostname": "w1@vm", "active": value})
    heard.task("received", name="api.request")
    heard.task("started", waited=value)
    heard.task("succeeded", runtime=value)
    heard.calls.hear({"type": "task-received", "uuid": "2", "hostname": "w1@vm", "name": "a", "timestamp": value})
    assert heard.value("gaia_monitor_events_odd_total") == 4
    assert heard.value("celery_task_runtime_count") in {0, None}
    assert heard.value("celery_worker_tasks_active") == 0


def test_of_more_workers_than_are_told_apart_none_is_up_or_down_for_ever(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for holder in (module, series):
        monkeypatch.setattr(holder, "MOST_VALUES", 3)
    for number in range(5):
        heard.task("received", str(number), worker=f"w{number}@h{number}", name="api.request")
    assert heard.value("celery_task_received_total", worker=OTHER) == 2
    assert heard.value("celery_worker_up") == 3
    assert heard.value("celery_worker_up", worker=OTHER) is None
    heard.now += PURGED_S + 1
    heard.calls.look()
    assert heard.value("celery_worker_up") is None
    heard.task("received", "9", worker="new@new", name="api.request")
    assert heard.value("celery_worker_up", worker="new@new", hostname="new") == 1
    assert heard.value("celery_task_received_total", worker="new@new", hostname="new") == 1

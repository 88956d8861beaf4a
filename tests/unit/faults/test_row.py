"""What a row says of the alerts that were seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.faults.__main__ import table
from tests.faults.row import Account, Fault, judge, run
from tests.faults.watch import Alert, Seen, Stall
from tests.support.disks import NotPermittedError


class Some(Fault):
    name = "some"
    what = "some fault"
    expected = ("GaiaWorkerNotReady", "GaiaWorkersDying")
    allowed = ("GaiaApiLatencyHigh", "GaiaErrorBudgetBurnSlow")
    subject = "api"


def judged(*stalls: Stall, others: dict[Alert, Seen] | None = None, **seen: Seen) -> Account:
    account = Account(Some.name, Some.what, 20, calls=9, ended_well=8, looks=700, due_looks=800)
    named = {Alert(name): each for name, each in seen.items()}
    judge(account, Some(), named | (others or {}), made_at=100, cleared_at=200, stalls=stalls)
    return account


READY = Seen(105, 108, 204)
DYING = Seen(110, 110, 230)


def test_a_row_is_sound_if_exactly_what_is_expected_fires_and_ends() -> None:
    assert judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING).sound
    assert judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING, GaiaApiLatencyHigh=Seen(120, 150, 220)).sound


def test_an_expected_alert_that_does_not_fire_is_missing() -> None:
    found = judged(GaiaWorkerNotReady=READY)
    assert (found.missing, found.sound) == (["GaiaWorkersDying"], False)


def test_an_alert_that_nobody_expects_is_told() -> None:
    found = judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING, GaiaRedisDown=Seen(101, 102, 103))
    assert (found.unexpected, found.sound) == (["GaiaRedisDown"], False)


def test_an_expected_alert_that_does_not_end_is_told() -> None:
    found = judged(GaiaWorkerNotReady=Seen(105, 108), GaiaWorkersDying=DYING)
    assert (found.lasting, found.sound) == (["GaiaWorkerNotReady"], False)


def test_times_that_wait_for_a_window_are_multiplied_and_those_of_the_cluster_are_not() -> None:
    found = judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING, GaiaApiLatencyHigh=Seen(110, 140, 215)).fired
    at_once, counted, filled = (found[f"Gaia{each}"] for each in ("WorkerNotReady", "WorkersDying", "ApiLatencyHigh"))
    assert (at_once.after_s, at_once.ended_s) == (5 + 60, 4)
    assert (counted.after_s, counted.ended_s) == (10, 30 * 20)
    assert (filled.after_s, filled.ended_s) == (10 * 20 + 600, 15 * 20)


def test_an_allowed_alert_that_does_not_end_is_told_too_unless_its_window_is_longer_than_a_row() -> None:
    found = judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING, GaiaApiLatencyHigh=Seen(120, 150))
    assert (found.lasting, found.sound) == (["GaiaApiLatencyHigh"], False)
    assert judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING, GaiaErrorBudgetBurnSlow=Seen(120, 150)).sound


def test_an_alert_of_another_worker_is_not_the_one_that_is_expected() -> None:
    found = judged(GaiaWorkersDying=DYING, others={Alert("GaiaWorkerNotReady", "files"): READY})
    assert (found.missing, found.unexpected) == (["GaiaWorkerNotReady"], ["GaiaWorkerNotReady of files"])
    assert judged(GaiaWorkersDying=DYING, others={Alert("GaiaWorkerNotReady", "api"): READY}).sound


def test_the_subject_of_an_alert_is_what_its_labels_name() -> None:
    named = {"alertname": "GaiaWorkerDown", "hostname": "h", "worker": "api@h"}
    assert Alert.of(named) == Alert("GaiaWorkerDown", "api")
    assert Alert.of({"alertname": "GaiaQueuePaused", "name": "files"}) == Alert("GaiaQueuePaused", "files")
    assert Alert.of({"alertname": "GaiaRedisDown", "instance": "127.0.0.1:1"}) == Alert("GaiaRedisDown")


def test_silence_that_nobody_watched_or_without_calls_is_not_sound() -> None:
    found = judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING)
    assert found.sound
    assert not replace(found, calls=0).sound
    assert not replace(found, ended_well=0).sound
    assert not replace(found, looks=300).sound
    assert not replace(found, looks=0, due_looks=0).sound


def test_what_a_machine_without_cpu_fires_is_told_and_not_held_against_the_row() -> None:
    seen = {"GaiaWorkerNotReady": READY, "GaiaWorkersDying": DYING, "GaiaWorkerNotScraped": Seen(111, 112, 113)}
    assert not judged(**seen).sound
    found = judged(Stall(109.5, 111.5), **seen)
    assert (found.starved, found.sound, found.stalled_s) == (["GaiaWorkerNotScraped"], True, 2)
    assert not judged(Stall(109.5, 111.5), **seen, GaiaRedisDown=Seen(111, 112, 113)).sound
    for other in (Stall(50, 90), Stall(120, 150), Stall(111, 111.2)):
        assert not judged(other, **seen).sound


class Broken(Fault):
    """What cannot be made ready."""

    name = "broken"
    what = "nothing"
    expected = ()

    def __init__(self, failure: Exception) -> None:
        self._failure = failure

    @contextmanager
    def prepared(self, directory: Path) -> Iterator[None]:
        del directory
        raise self._failure
        yield


def test_a_row_that_may_not_be_run_is_told_and_one_that_fails_with_anything_is_not_sound(tmp_path: Path) -> None:
    refused = run(Broken(NotPermittedError("needs root")), tmp_path, 20)
    assert (refused.not_run, refused.sound) == ("needs root", True)
    assert "NOT RUN: needs root" in table([refused])
    failed = run(Broken(KeyError("x")), tmp_path, 20)
    assert (failed.error, failed.sound) == ("KeyError: 'x'", False)

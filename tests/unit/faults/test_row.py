"""What a row says of the alerts that were seen."""

from tests.faults.row import Account, Fault, judge
from tests.faults.watch import Seen


class Some(Fault):
    name = "some"
    what = "some fault"
    expected = ("GaiaWorkerNotReady", "GaiaWorkersDying")
    allowed = ("GaiaApiLatencyHigh",)


def judged(stalled_s: float = 0.0, **seen: Seen) -> Account:
    account = Account(Some.name, Some.what, 20, stalled_s=stalled_s)
    judge(account, Some(), seen, made_at=100, cleared_at=200)
    return account


READY = Seen(105, 108, 204)
DYING = Seen(110, 110, 230)


def test_a_row_is_sound_if_exactly_what_is_expected_fires_and_ends() -> None:
    assert judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING).sound
    assert judged(GaiaWorkerNotReady=READY, GaiaWorkersDying=DYING, GaiaApiLatencyHigh=Seen(120, 150)).sound


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


def test_what_a_machine_without_cpu_fires_is_told_and_not_held_against_the_row() -> None:
    seen = {"GaiaWorkerNotReady": READY, "GaiaWorkersDying": DYING, "GaiaWorkerNotScraped": Seen(101, 102, 103)}
    assert not judged(**seen).sound
    found = judged(stalled_s=2, **seen)
    assert (found.starved, found.sound) == (["GaiaWorkerNotScraped"], True)
    assert not judged(stalled_s=2, **seen, GaiaRedisDown=Seen(101, 102, 103)).sound

"""A transfer's bandwidth: asked for without waiting, waited for, and bounded."""

import pytest

from config.settings import Limits as Defaults
from gaia.errors import LimitExceeded, Unreachable
from gaia.store.limits import Limit
from tasks import metrics
from tasks.cli.server import free_port
from tasks.limits.cluster import Limits
from tasks.limits.policy import Policy, levels
from tasks.limits.protocols import Away
from tasks.limits.throttle import CHUNK_S, PAUSE_S, Granted, Throttle
from tasks.scope import Scope
from tests.support.limits import HeldTime

JOB = levels(job="b")


def throttle(time: HeldTime | None = None, **set_to: float) -> tuple[Limits, Throttle]:
    limit = Limit(**{"bytes_per_s": 1000.0, **set_to})  # type: ignore[arg-type]
    limits = Limits.in_memory(Policy(Defaults(), {"job:b": limit}), time.clock() if time else None)
    return limits, Throttle(limits, JOB, if_away=Away.FAIL_OPEN)


def test_what_is_granted_is_told_with_its_time_and_never_waited_for() -> None:
    time = HeldTime()
    _, found = throttle(time)
    moved, began = 0, time.now_s()
    while (now := time.now_s()) < began + 20:
        granted = found.ask(64 * 1024, now)
        assert granted.size_bytes <= 1000 * CHUNK_S
        moved += granted.size_bytes
        # To the microsecond, which is what the clock holds; an answer for now is asked again after a moment.
        time.advance(max(granted.at - now, 0.000001))
    assert 20 * 1000 * 0.99 <= moved <= 20 * 1000 * 1.01


def test_asking_before_the_time_that_was_told_is_in_vain() -> None:
    time = HeldTime()
    _, found = throttle(time)
    now = time.now_s()
    while (granted := found.ask(10_000, now)).size_bytes:
        assert granted.at <= now + PAUSE_S
    assert now < granted.at <= now + PAUSE_S
    time.advance((granted.at - now) / 2)
    assert found.ask(10_000, time.now_s()) == Granted(0, granted.at)


def test_without_a_bandwidth_all_may_move_at_once() -> None:
    limits = Limits.in_memory(Policy(Defaults(), {}))
    assert Throttle(limits, JOB, if_away=Away.FAIL_OPEN).ask(2**40, 7.0) == Granted(2**40, 7.0)


def test_a_redis_that_is_away_opens_or_refuses_as_was_chosen() -> None:
    found = Limits.in_redis(f"redis://127.0.0.1:{free_port('127.0.0.1')}/0", Defaults(bytes_per_s=1000.0))
    names = levels(host="a.test")
    assert Throttle(found, names, if_away=Away.FAIL_OPEN).ask(50, 0.0).size_bytes == 50
    with pytest.raises(Unreachable):
        Throttle(found, names, if_away=Away.FAIL_CLOSED).ask(50, 0.0)
    found.close()


def test_a_shadow_makes_no_chunk_smaller_and_no_transfer_late() -> None:
    _, found = throttle(shadow=True)
    assert found.leave(Scope.lasting(), 64 * 1024) == 64 * 1024
    found.pace(Scope.lasting(), 10**6, longest_s=0.01)


def test_what_others_took_is_waited_for_within_the_bound_alone() -> None:
    limits, found = throttle(bytes_per_s=1.0)
    limits.move(Scope.lasting(), JOB, 1, if_away=Away.FAIL_OPEN)
    with pytest.raises(LimitExceeded):
        found.pace(Scope.lasting(), 1, longest_s=0.3)
    with pytest.raises(LimitExceeded):
        found.leave(Scope.lasting(), 1, longest_s=0.3)


def test_the_time_that_a_transfer_waits_is_counted() -> None:
    def paused_s() -> float:
        return metrics.REGISTRY.get_sample_value("gaia_limit_paused_seconds_total", {"limit": "bytes"}) or 0.0

    _, found = throttle(bytes_per_s=1000.0, burst=1)
    before_s = paused_s()
    found.pace(Scope.lasting(), 300, longest_s=10)
    assert paused_s() - before_s > 0.1


def test_what_takes_too_long_alone_takes_nothing() -> None:
    limits, found = throttle()
    with pytest.raises(LimitExceeded):
        found.pace(Scope.lasting(), 10**6, longest_s=10)
    untouched = throttle()[0]
    at_once = [each.move(Scope.lasting(), JOB, 1000, if_away=Away.FAIL_OPEN) for each in (limits, untouched)]
    assert at_once[0] == at_once[1]

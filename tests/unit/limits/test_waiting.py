"""Waiting for leave: bounded by 250 ms, by the deadline, by a cancel."""

import threading

import pytest

from gaia.errors import Cancelled, DeadlineExceeded, LimitExceeded
from tasks.limits.protocols import Admitted, Refused
from tasks.limits.waiting import leave
from tasks.scope import Scope


def test_leave_is_handed_on_at_once() -> None:
    assert leave(Scope.lasting(1), lambda: Admitted(3), limit="a") == Admitted(3)


def test_a_short_refusal_is_waited_for() -> None:
    answers = iter([Refused("a", 0.002), Refused("a", 0.001), Admitted()])
    assert leave(Scope.lasting(60), lambda: next(answers), limit="a") == Admitted()


def test_a_long_one_is_for_the_caller() -> None:
    with pytest.raises(LimitExceeded) as caught:
        leave(Scope.lasting(60), lambda: Refused("rate:a", 7.5), limit="b")
    assert caught.value.args == ("rate:a", 7.5)


def test_short_ones_add_up() -> None:
    with pytest.raises(LimitExceeded):
        leave(Scope.lasting(60), lambda: Refused("a", 0.01), limit="a", longest_s=0.05)


def test_what_was_reserved_is_waited_for() -> None:
    assert leave(Scope.lasting(60), lambda: Admitted(1, 0.002), limit="a", longest_s=0.001).tokens == 1


def test_no_wait_reaches_past_the_deadline() -> None:
    for found in (Refused("a", 0.2), Admitted(1, 0.2)):
        with pytest.raises(LimitExceeded):
            leave(Scope.lasting(0.1), lambda found=found: found, limit="a")
    with pytest.raises(DeadlineExceeded):
        leave(Scope.lasting(-1), lambda: Refused("a", 0.01), limit="a")


def test_a_cancel_ends_a_wait() -> None:
    scope = Scope.lasting(60)
    timer = threading.Timer(0.01, scope.cancelled.set)
    timer.start()
    with pytest.raises(Cancelled):
        leave(scope, lambda: Refused("a", 30.0), limit="a", longest_s=60)
    timer.join()

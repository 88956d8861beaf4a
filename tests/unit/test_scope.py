"""What bounds a running call."""

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from gaia.errors import Cancelled, DeadlineExceeded
from tasks.scope import LONGEST_WAIT_S, CancelToken, Clock, Later, Scope


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now, monotonic=lambda: self.now)


@pytest.fixture
def hand() -> Hand:
    return Hand()


def scope_of(hand: Hand, seconds: float = 10.0) -> Scope:
    return Scope.lasting(seconds, operation="api.request", clock=hand.clock())


# --- deadlines


def test_time_runs_out(hand: Hand) -> None:
    scope = scope_of(hand)
    assert scope.remaining_s() == 10
    scope.check()
    hand.now += 10.25
    assert scope.remaining_s() == -0.25
    with pytest.raises(DeadlineExceeded) as caught:
        scope.check()
    assert caught.value.args == ("api.request", 0.25)


def test_the_deadline_itself_is_past(hand: Hand) -> None:
    scope = scope_of(hand)
    hand.now += 10
    with pytest.raises(DeadlineExceeded):
        scope.bound_s(5)


@pytest.mark.parametrize(
    ("timeout_s", "bound_s"), [(None, 10.0), (4.0, 4.0), (40.0, 10.0), (0.0, 0.0), (math.inf, 10.0)]
)
def test_a_wait_is_bounded_by_the_shorter(hand: Hand, timeout_s: float | None, bound_s: float) -> None:
    assert scope_of(hand).bound_s(timeout_s) == bound_s


def test_a_wait_is_never_longer_than_the_system_takes(hand: Hand) -> None:
    scope = scope_of(hand, 1e12)
    assert scope.bound_s() == scope.bound_s(1e11) == LONGEST_WAIT_S
    assert min(threading.TIMEOUT_MAX, 2**31 / 1000) > LONGEST_WAIT_S


def test_the_last_moment_still_bounds_a_wait_above_nought(hand: Hand) -> None:
    assert scope_of(hand, 1e-9).bound_s() > 0


def test_a_cancelled_call_is_cancelled_though_it_is_late_too(hand: Hand) -> None:
    scope = scope_of(hand, -1)
    scope.cancelled.set()
    for ask in (scope.check, scope.bound_s):
        with pytest.raises(Cancelled):
            ask()


def test_progress_goes_to_whoever_reports_it(hand: Hand) -> None:
    told: list[tuple[float, float | None, str]] = []
    scope = replace(scope_of(hand), report=lambda *word: told.append(word))
    scope.progress(1)
    scope.progress(2, 3, "note")
    scope_of(hand).progress(1)
    assert told == [(1, None, ""), (2, 3, "note")]


def test_later_says_when() -> None:
    assert Later(1.5).after_s == 1.5


# --- cancelling


def test_a_token_is_set_once_and_wakes_who_waits() -> None:
    token = CancelToken()
    assert not token.is_set()
    assert not token.wait(0)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(token.wait(20)))
    thread.start()
    token.set()
    token.set()
    thread.join(20)
    assert woken == [True]
    assert token.is_set()


def test_a_callback_runs_once_however_often_it_is_cancelled() -> None:
    token, calls = CancelToken(), list[int]()
    with token.calling(lambda: calls.append(1)):
        token.set()
        token.set()
    assert calls == [1]


def test_a_callback_registered_too_late_runs_at_once() -> None:
    token, calls = CancelToken(), list[int]()
    token.set()
    with token.calling(lambda: calls.append(1)):
        assert calls == [1]
    assert calls == [1]


def test_after_its_block_a_callback_does_not_run() -> None:
    token, calls = CancelToken(), list[int]()
    with token.calling(lambda: calls.append(1)):
        pass
    with pytest.raises(ZeroDivisionError), token.calling(lambda: calls.append(2)):
        raise ZeroDivisionError
    token.set()
    assert calls == []


def test_the_same_callback_may_be_registered_twice() -> None:
    token, calls = CancelToken(), list[int]()

    def callback() -> None:
        calls.append(1)

    with token.calling(callback):
        with token.calling(callback):
            pass
        token.set()
    assert calls == [1]


def test_a_callback_that_raises_keeps_no_other_from_running() -> None:
    token, calls = CancelToken(), list[int]()

    def fail() -> None:
        raise ValueError("x")

    with token.calling(lambda: calls.append(1)), token.calling(fail), token.calling(lambda: calls.append(2)):
        with pytest.raises(ExceptionGroup) as caught:
            token.set()
        assert [type(each) for each in caught.value.exceptions] == [ValueError]
    assert calls == [1, 2]
    token.set()


def test_a_callback_may_ask_and_register_again() -> None:
    token, calls = CancelToken(), list[bool]()

    def callback() -> None:
        with token.calling(lambda: calls.append(token.is_set())):
            pass

    with token.calling(callback):
        token.set()
    assert calls == [True]


def test_whoever_registers_while_it_is_cancelled_is_called_exactly_once() -> None:
    for _ in range(200):
        token, calls = CancelToken(), list[int]()
        begin = threading.Barrier(3)
        entered = threading.Event()

        def cancel(token: CancelToken = token, begin: threading.Barrier = begin) -> None:
            begin.wait(10)
            token.set()

        def register(
            token: CancelToken = token,
            begin: threading.Barrier = begin,
            calls: list[int] = calls,
            entered: threading.Event = entered,
        ) -> None:
            begin.wait(10)
            with token.calling(lambda: calls.append(1)):
                entered.set()
                token.wait(10)
                # The callback may still be under way in the other thread.
                while not calls:
                    token.wait(0)

        threads = [threading.Thread(target=each) for each in (cancel, register)]
        run_together(threads, begin.wait)
        assert calls == [1]
        assert entered.is_set()


def run_together(threads: list[threading.Thread], begin: Callable[[], object]) -> None:
    for each in threads:
        each.start()
    begin()
    for each in threads:
        each.join(20)
        assert not each.is_alive()

"""What a process remembers of circuits: calls saved, and nothing believed for too long."""

import pytest

from tasks.limits.protocols import Away, Passage, Refused, Rules, State
from tasks.limits.shared import Seen, SharedBreaker
from tasks.limits.view import ViewedBreaker
from tests.support.limits import HeldTime

RULES = Rules()


class Counting(SharedBreaker):
    """Answers as told, and counts."""

    def __init__(self) -> None:
        self.verbs: list[str] = []
        self.seen = Seen(State.CLOSED, 0, 0)

    def entered(self, name: str, rules: Rules, *, if_away: Away) -> tuple[Passage | Refused, Seen | None]:
        del if_away
        self.verbs.append("enter")
        return (Refused(name, self.seen.out_us / 1e6) if self.seen.out_us > 0 else Passage(name, rules)), self.seen

    def step(self, verb: str, passage: Passage) -> Seen:
        del passage
        self.verbs.append(verb)
        return self.seen


@pytest.fixture
def time() -> HeldTime:
    return HeldTime()


def test_a_closed_circuit_costs_a_call_a_second(time: HeldTime) -> None:
    shared = Counting()
    breaker = ViewedBreaker(shared, time.clock())
    for _ in range(100):
        passage = breaker.enter("a", RULES, if_away=Away.FAIL_CLOSED)
        assert isinstance(passage, Passage)
        breaker.succeeded(passage)
        time.advance(0.05)
    assert shared.verbs == ["enter"] * 5


def test_a_success_is_told_where_failures_are_known(time: HeldTime) -> None:
    shared = Counting()
    breaker = ViewedBreaker(shared, time.clock())
    shared.seen = Seen(State.CLOSED, 2, 0)
    passage = breaker.enter("a", RULES, if_away=Away.FAIL_CLOSED)
    assert isinstance(passage, Passage)
    shared.seen = Seen(State.CLOSED, 0, 0)
    breaker.succeeded(passage)
    breaker.succeeded(passage)
    assert shared.verbs == ["enter", "succeeded"]


def test_an_open_circuit_costs_no_call_until_it_is_half_open(time: HeldTime) -> None:
    shared = Counting()
    breaker = ViewedBreaker(shared, time.clock())
    shared.seen = Seen(State.OPEN, 5, 30_000_000)
    for _ in range(29):
        assert isinstance(breaker.enter("a", RULES, if_away=Away.FAIL_CLOSED), Refused)
        time.advance(1)
    assert shared.verbs == ["enter"]
    time.advance(1)
    breaker.enter("a", RULES, if_away=Away.FAIL_CLOSED)
    assert shared.verbs == ["enter", "enter"]


def test_an_announced_change_is_asked_for_at_once(time: HeldTime) -> None:
    shared = Counting()
    breaker = ViewedBreaker(shared, time.clock())
    breaker.enter("a", RULES, if_away=Away.FAIL_CLOSED)
    breaker.forget("a")
    breaker.enter("a", RULES, if_away=Away.FAIL_CLOSED)
    breaker.forget()
    breaker.enter("a", RULES, if_away=Away.FAIL_CLOSED)
    assert shared.verbs == ["enter"] * 3

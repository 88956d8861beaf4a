"""What holds for every sequence of steps: the bound of the rate, no starvation, the states of a circuit."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.limits.ahead import Ahead, horizon_s
from tasks.limits.circuit import SECOND_US, Circuit
from tasks.limits.gcra import Level, take
from tasks.limits.memory import MemoryTokens
from tasks.limits.protocols import Admitted, Away, Bucket, Refused, Rules, State
from tests.support.limits import HeldTime, Limiting, in_memory, in_redis

RATES = st.one_of(st.integers(1, 5000), st.floats(0.01, 5000))
STEPS = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 60)), min_size=1, max_size=60)
OPEN = Away.FAIL_OPEN
_numbers = itertools.count()


def assert_bound(admissions: list[tuple[float, int]], rate: float, burst: float) -> None:
    """Over every window that begins and ends with an admission, no more than rate * time + burst."""
    for first, (begins, _) in enumerate(admissions):
        total = 0
        for at, tokens in admissions[first:]:
            total += tokens
            assert total <= rate * (at - begins) + burst + 1e-6


@given(RATES, st.integers(1, 100), STEPS)
def test_never_more_than_rate_times_time_plus_burst(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    levels: dict[str, Level] = {}
    now_us, admissions = 0, []
    for pause, wanted in steps:
        now_us += int(pause * 1e6)
        found = take(levels, [Bucket("a", rate, burst)], now_us=now_us, wanted=wanted)
        if found.tokens:
            admissions.append((now_us / 1e6, found.tokens))
    assert_bound(admissions, rate, burst)


@given(RATES, st.integers(1, 100), STEPS)
def test_whoever_waits_as_told_is_admitted(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    levels: dict[str, Level] = {}
    now_us = 0
    for pause, wanted in steps:
        now_us += int(pause * 1e6)
        found = take(levels, [Bucket("a", rate, burst)], now_us=now_us, wanted=wanted)
        if not found.tokens:
            # A fractional rate may round the wait by a microsecond.
            now_us += found.wait_us + (0 if float(rate).is_integer() else 1)
            assert take(levels, [Bucket("a", rate, burst)], now_us=now_us, wanted=1).tokens == 1


@given(
    st.integers(40, 2000),
    st.integers(10, 2000),
    st.lists(st.tuples(st.integers(0, 7), st.floats(0, 0.4), st.integers(1, 50)), min_size=1, max_size=60),
)
def test_processes_that_lease_ahead_stay_within_the_bound(
    rate: int, burst: int, steps: list[tuple[int, float, int]]
) -> None:
    time = HeldTime()
    store = MemoryTokens(time.clock())
    processes = [Ahead(store, time.clock()) for _ in range(8)]
    bucket = Bucket("rate:a", rate, burst)
    admissions: list[tuple[float, int]] = []
    for number, pause, asks in steps:
        time.advance(pause)
        for _ in range(asks):
            found = processes[number].admit([bucket], if_away=OPEN)
            if isinstance(found, Admitted):
                admissions.append((time.now_s() + found.wait_s, 1))
    assert_bound(sorted(admissions), rate, burst)


@given(st.integers(40, 2000), st.integers(10, 2000), st.lists(st.floats(0.0, 0.01), min_size=1, max_size=200))
def test_leasing_ahead_starves_nobody(rate: int, burst: int, pauses: list[float]) -> None:
    time = HeldTime()
    store = MemoryTokens(time.clock())
    processes = [Ahead(store, time.clock()) for _ in range(4)]
    bucket = Bucket("rate:a", rate, burst)
    for pause in pauses:
        time.advance(pause)
        for each in processes:
            each.admit([bucket], if_away=OPEN)
    for each in processes:
        for _ in range(100):
            found = each.admit([bucket], if_away=OPEN)
            if isinstance(found, Admitted):
                break
            time.advance(found.retry_after_s + 1e-6)
        else:
            pytest.fail("never admitted")


@given(RATES, st.integers(1, 4000))
def test_what_is_kept_back_for_leases_is_half_of_a_burst_at_most(rate: float, burst: int) -> None:
    assert rate * horizon_s(Bucket("a", rate, burst)) <= burst / 2 + 1e-9


STEP = st.one_of(
    st.tuples(st.just("enter"), st.just(0)),
    st.tuples(st.sampled_from(["succeeded", "failed", "abandoned"]), st.integers(0, 5)),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 1.0, 5.0, 30.0, 60.0])),
)
RULES = Rules(failure_threshold=2, open_s=30.0, success_threshold=2, probe_s=60.0)


@given(st.lists(STEP, max_size=60))
def test_a_circuit_never_has_two_probes_and_opens_only_by_failures(steps: list[tuple[str, Any]]) -> None:
    circuit, now_us, probes, known = Circuit(), 1, 0, [""]
    for verb, detail in steps:
        before = circuit.state(now_us)
        if verb == "advance":
            now_us += int(detail * SECOND_US)
            assert (circuit.state(now_us), before) != (State.OPEN, State.HALF_OPEN)
            continue
        if verb == "enter":
            running = bool(circuit.probe) and now_us < circuit.probe_until_us
            probes += 1
            found = circuit.enter(RULES, now_us, f"p{probes}")
            if before is State.HALF_OPEN:
                assert isinstance(found, int) == running
            else:
                assert found == "" if before is State.CLOSED else isinstance(found, int)
            known += [found] if isinstance(found, str) else []
        elif verb == "abandoned":
            circuit.abandoned(known[detail % len(known)])
        else:
            getattr(circuit, verb)(RULES, now_us, known[detail % len(known)])
        after = circuit.state(now_us)
        allowed = {State.CLOSED: {State.OPEN}, State.OPEN: set(), State.HALF_OPEN: {State.OPEN, State.CLOSED}}
        assert after is before or after in allowed[before]
        assert after is not State.OPEN or before is State.OPEN or verb == "failed"


@pytest.fixture(scope="module")
def twins(redis_url: str) -> Any:
    with in_redis(redis_url) as found:
        yield found


@given(st.data())
def test_the_scripts_answer_as_the_arithmetic_does(twins: Limiting, data: st.DataObject) -> None:
    memory = in_memory()
    name = f"n{next(_numbers)}"
    stack = [
        Bucket(f"{name}{level}", data.draw(RATES), data.draw(st.integers(1, 100)), data.draw(st.booleans()))
        for level in range(data.draw(st.integers(1, 3)))
    ]
    for pause, wanted in data.draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 60)), max_size=10)):
        horizon, returned = data.draw(st.sampled_from([0.0, 0.25])), data.draw(st.integers(0, 3))
        answers = []
        for each in (memory, twins):
            each.clock.advance(pause)
            answers.append(each.tokens.lease(stack, wanted=wanted, horizon_s=horizon, returned=returned, if_away=OPEN))
        assert answers[0] == answers[1]


@given(st.lists(STEP, max_size=25))
def test_the_circuits_script_answers_as_the_arithmetic_does(twins: Limiting, steps: list[tuple[str, Any]]) -> None:
    name = f"n{next(_numbers)}"
    both = (in_memory(), twins)
    passages: list[list[Any]] = [[], []]
    for verb, detail in steps:
        answers: list[Any] = []
        for each, known in zip(both, passages, strict=True):
            if verb == "advance":
                each.clock.advance(detail)
            elif verb == "enter":
                found = each.breaker.enter(name, RULES, if_away=OPEN)
                known.extend([] if isinstance(found, Refused) else [found])
                answers.append(found if isinstance(found, Refused) else bool(found.probe))
            elif known:
                getattr(each.breaker, verb)(known[detail % len(known)])
            answers.append(each.breaker.state(name))
        assert answers[: len(answers) // 2] == answers[len(answers) // 2 :]

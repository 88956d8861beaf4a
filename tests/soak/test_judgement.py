"""The verdict on samples that are made up: what grows is named, what only wavers is not."""

import random
from collections.abc import Callable
from functools import partial
from operator import mul

import pytest

from tests.soak.judgement import MIB, Row, Slope, bound_of, condense, judge, rise, theil_sen
from tests.soak.keyspace import prefix
from tests.soak.litter import struck
from tests.soak.samples import Quantity, Sample

MEMORY = Quantity("api", "private, bytes")
THREADS = Quantity("api", "threads")


def samples(
    value: Callable[[int], float], quantity: Quantity = MEMORY, count: int = 40, each: int = 50
) -> list[Sample]:
    """Give samples after every so many calls of the queue; other queues have calls, too."""
    return [
        Sample({"api": number * each, "files": number * 7}, {quantity: value(number * each)}) for number in range(count)
    ]


def verdict(found: list[Sample]) -> Row:
    (row,) = judge(found[0], found, found[-1])
    return row


def test_a_line_has_its_slope() -> None:
    points = [(float(x), 3 + 0.002 * x) for x in range(0, 2000, 100)]
    found = theil_sen(points)
    assert found is not None
    assert found == Slope(pytest.approx(2.0), pytest.approx(2.0), pytest.approx(2.0))


def test_a_third_of_wild_values_does_not_move_the_slope() -> None:
    chance = random.Random(3)
    points = [(float(x), 0.002 * x + (chance.choice((0, 0, 500)))) for x in range(0, 3000, 50)]
    found = theil_sen(points)
    assert found is not None
    assert found.per_1000 == pytest.approx(2.0, abs=1.0)
    assert found.low <= found.per_1000 <= found.high


def test_the_interval_holds_the_slope_nearly_always() -> None:
    held = 0
    for seed in range(200):
        chance = random.Random(seed)
        found = theil_sen([(float(x), 0.005 * x + chance.gauss(0, 3)) for x in range(0, 3000, 100)])
        assert found is not None
        held += found.low <= 5.0 <= found.high
    assert held >= 190


def test_few_points_or_no_calls_have_no_slope() -> None:
    assert theil_sen([(0.0, 1.0), (1.0, 2.0)]) is None
    assert theil_sen([(5.0, float(y)) for y in range(20)]) is None


def test_points_are_drawn_together_by_medians() -> None:
    points = [(float(x), 0.0 if x % 3 else 1000.0) for x in range(300)]
    found = condense(points, 100)
    assert len(found) == 100
    assert {y for _, y in found} == {0.0}
    assert condense([], 10) == []


def test_a_rise_is_of_the_last_quarter_over_the_first() -> None:
    assert rise([(float(x), float(x)) for x in range(8)]) == 6.0
    assert rise([]) == 0.0


def test_memory_that_grows_with_the_calls_leaks() -> None:
    row = verdict(samples(lambda calls: 60 * MIB + calls * 6000))
    assert row.leaks
    assert row.per_1000 == pytest.approx(6_000_000)
    assert "api: private, bytes" in str(row)


def test_memory_that_fills_up_and_then_wavers_does_not() -> None:
    chance = random.Random(1)
    assert not verdict(samples(lambda calls: 60 * MIB + min(calls, 200) * 4000 + chance.gauss(0, MIB))).leaks


def test_memory_that_grows_by_little_in_few_calls_is_no_proof() -> None:
    assert not verdict(samples(lambda calls: 60 * MIB + calls * 6000, count=10)).leaks


def test_a_rise_that_few_calls_make_is_seen_before_it_is_large() -> None:
    row = verdict(samples(lambda calls: 60 * MIB + calls * 5000, count=24))  # in 1150 calls
    assert row.rise < 8 * MIB
    assert row.leaks


@pytest.mark.parametrize("calls", [500, 1150, 3000, 20_000])
def test_growth_is_seen_from_what_is_said_on(calls: int) -> None:
    seen = bound_of(MEMORY).sees(calls) / 1000
    for times, leaks in ((1.1, True), (0.9, False)):
        found = samples(partial(mul, seen * times), count=81, each=calls // 80)
        (row,) = judge(found[0], found, Sample(found[-1].calls, found[0].values))  # at rest all is well
        assert row.leaks == leaks


def test_a_thread_left_by_every_hundredth_call_leaks_and_a_pool_that_got_one_more_does_not() -> None:
    assert verdict(samples(lambda calls: 12 + calls // 100, THREADS)).leaks
    assert not verdict(samples(lambda calls: 12 + (calls > 500), THREADS)).leaks


def test_what_went_up_under_load_and_came_back_does_not_leak() -> None:
    found = samples(lambda calls: 12 + (calls % 300) // 50, THREADS)
    (row,) = judge(found[0], found, found[0])
    assert not row.leaks


@pytest.mark.parametrize(
    "name",
    [
        *("redis: keys without an end: soak:leaked:*", "redis: entries: gaia:processes", "api: zombies"),
        *("disk: tmp/gaia-browser-*", "disk: files/.gaia/drafts/*", "redis: keys with an end: made-up:*"),
    ],
)
def test_what_nothing_excuses_may_not_grow_by_one(name: str) -> None:
    owner, _, rest = name.partition(": ")
    quantity = Quantity(owner, rest)
    (row,) = judge(Sample({"api": 0}, {}), [], Sample({"api": 5000}, {quantity: 1.0}))
    assert row.leaks


def test_a_call_may_leave_one_result_that_ends() -> None:
    quantity = Quantity("redis", "keys with an end: celery-task-meta-*")
    for left, leaks in ((1000.0, False), (2000.0, True)):
        (row,) = judge(Sample({"api": 0}), [], Sample({"api": 1000}, {quantity: left}))
        assert row.leaks == leaks


def test_the_bound_of_a_worker_s_threads_is_not_that_of_what_is_below_it() -> None:
    assert bound_of(Quantity("browser", "below it: threads")) != bound_of(Quantity("browser", "threads"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("celery-task-meta-6a1f0c1e-4c8f-4f4e-9d5b-0d8d7a3b2c1d", "celery-task-meta-*"),
        ("{gaia:limits}:bucket:api.example.com", "{gaia:limits}:bucket:*"),
        ("{gaia:dns}:3:a:A:www.test", "{gaia:dns}:*"),
        ("{gaia:dns}:flushes", "{gaia:dns}:flushes"),
        ("gaia:processes", "gaia:processes"),
        ("soak:leaked:0123456789abcdef", "soak:leaked:*"),
    ],
)
def test_a_key_is_known_by_its_beginning(name: str, shown: str) -> None:
    assert prefix(name) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gaia-browser-x1_y2z3a", "gaia-browser-*"),
        ("3f", "*"),
        ("identity", "identity"),
        ("w17", "w*"),
    ],
)
def test_a_file_is_known_by_what_is_not_random(name: str, shown: str) -> None:
    assert struck(name) == shown

"""Whatever keeps a limit keeps it exactly, to the microsecond: in memory, and in Redis."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gaia.errors import LeaseLost
from tasks.limits.protocols import Admitted, Away, Bucket, Lease, Passage, Refused, Rules, Slots, State
from tests.support.limits import Limiting, in_memory, in_redis, viewed

CLOSED = Away.FAIL_CLOSED
RULES = Rules(failure_threshold=5, open_s=30.0, success_threshold=3, probe_s=60.0)


@pytest.fixture(params=["memory", "redis", "viewed"])
def limiting(request: pytest.FixtureRequest) -> Iterator[Limiting]:
    if request.param == "memory":
        yield in_memory()
        return
    made = {"redis": in_redis, "viewed": viewed}[request.param]
    with made(request.getfixturevalue("fresh_url")) as found:
        yield found


def admitted(limiting: Limiting, *buckets: Bucket, most: int = 1000) -> int:
    """Ask until refused; give how often the answer was leave."""
    for count in range(most):
        if isinstance(limiting.tokens.admit(buckets, if_away=CLOSED), Refused):
            return count
    return most


def lease(limiting: Limiting, *slots: Slots, ttl_s: float = 10.0) -> Lease:
    found = limiting.leases.acquire(slots, ttl_s=ttl_s, if_away=CLOSED)
    assert isinstance(found, Lease)
    return found


def passage(limiting: Limiting, rules: Rules = RULES) -> Passage:
    found = limiting.breaker.enter("a.example", rules, if_away=CLOSED)
    assert isinstance(found, Passage)
    return found


def kept_out(limiting: Limiting, rules: Rules = RULES) -> float:
    found = limiting.breaker.enter("a.example", rules, if_away=CLOSED)
    assert isinstance(found, Refused)
    return found.retry_after_s


def opened(limiting: Limiting) -> None:
    for _ in range(RULES.failure_threshold):
        limiting.breaker.failed(passage(limiting))


# --- rates


def test_a_burst_is_admitted_at_once_and_not_one_more(limiting: Limiting) -> None:
    assert admitted(limiting, Bucket("a", 10, 7)) == 7


def test_the_next_is_admitted_to_the_microsecond(limiting: Limiting) -> None:
    bucket = Bucket("a", 8, 1)
    assert admitted(limiting, bucket) == 1
    assert limiting.tokens.admit([bucket], if_away=CLOSED) == Refused("a", 0.125)
    limiting.clock.advance(0.124999)
    assert limiting.tokens.admit([bucket], if_away=CLOSED) == Refused("a", 0.000001)
    limiting.clock.advance(0.000001)
    assert limiting.tokens.admit([bucket], if_away=CLOSED) == Admitted(1)


def test_waiting_as_told_is_enough_at_any_rate(limiting: Limiting) -> None:
    for rate in (0.1, 0.3, 1 / 3, 3, 7.7, 999.9, 1_000_000):
        bucket = Bucket(f"r{rate}", rate, 1)
        assert admitted(limiting, bucket, most=1) == 1
        refused = limiting.tokens.admit([bucket], if_away=CLOSED)
        if isinstance(refused, Refused):
            limiting.clock.advance(refused.retry_after_s + 0.000001)
        assert isinstance(limiting.tokens.admit([bucket], if_away=CLOSED), Admitted)


def test_a_bucket_never_holds_more_than_its_burst(limiting: Limiting) -> None:
    bucket = Bucket("a", 100, 5)
    admitted(limiting, bucket)
    limiting.clock.advance(3600)
    assert admitted(limiting, bucket) == 5


def test_a_stack_is_taken_whole_or_not_at_all(limiting: Limiting) -> None:
    outer, inner = Bucket("outer", 1, 2), Bucket("inner", 1, 5)
    assert admitted(limiting, outer, inner) == 2
    assert limiting.tokens.admit([outer, inner], if_away=CLOSED) == Refused("outer", 1.0)
    assert admitted(limiting, inner) == 3


def test_a_refusing_inner_level_leaves_the_outer_one_alone(limiting: Limiting) -> None:
    outer, inner = Bucket("outer", 1, 5), Bucket("inner", 1, 2)
    assert admitted(limiting, outer, inner) == 2
    assert admitted(limiting, outer) == 3


def test_the_level_that_takes_longest_is_the_one_named(limiting: Limiting) -> None:
    stack = [Bucket("fast", 10, 1), Bucket("slow", 1, 1)]
    assert admitted(limiting, *stack) == 1
    assert limiting.tokens.admit(stack, if_away=CLOSED) == Refused("slow", 1.0)


def test_an_empty_stack_admits(limiting: Limiting) -> None:
    assert limiting.tokens.admit([], if_away=CLOSED) == Admitted(1)


def test_a_shadow_counts_and_never_refuses(limiting: Limiting) -> None:
    shadow = Bucket("a", 1, 2, shadow=True)
    assert admitted(limiting, shadow, most=5) == 5
    taken = limiting.tokens.lease([shadow], wanted=3, horizon_s=0.0, returned=0, if_away=CLOSED)
    assert (taken.tokens, taken.shadowed) == (3, (3,))
    # What it would have refused is not on its account: in earnest, it admits again a second later.
    limiting.clock.advance(1)
    assert admitted(limiting, Bucket("a", 1, 2)) == 1


def test_a_rate_that_is_raised_holds_at_once(limiting: Limiting) -> None:
    assert admitted(limiting, Bucket("a", 0.001, 10)) == 10
    limiting.clock.advance(0.1)
    assert admitted(limiting, Bucket("a", 100, 10)) == 10


def test_a_rate_that_is_lowered_keeps_nobody_waiting_for_what_was(limiting: Limiting) -> None:
    assert admitted(limiting, Bucket("a", 1000, 1000)) == 1000
    refused = limiting.tokens.admit([Bucket("a", 1, 2)], if_away=CLOSED)
    assert refused == Refused("a", 3.0)


def test_more_than_four_fifths_of_a_bucket_is_near_its_limit(limiting: Limiting) -> None:
    bucket = Bucket("a", 1, 10)
    near = [
        limiting.tokens.lease([bucket], wanted=1, horizon_s=0.0, returned=0, if_away=CLOSED).near[0] for _ in range(10)
    ]
    assert near == [False] * 8 + [True] * 2


def test_tokens_are_leased_ahead_as_many_as_there_are(limiting: Limiting) -> None:
    bucket = Bucket("a", 10, 8)
    taken = limiting.tokens.lease([bucket], wanted=5, horizon_s=0.0, returned=0, if_away=CLOSED)
    assert (taken.tokens, taken.wait_us) == (5, 0)
    taken = limiting.tokens.lease([bucket], wanted=5, horizon_s=0.0, returned=0, if_away=CLOSED)
    assert (taken.tokens, taken.wait_us) == (3, 0)


def test_tokens_are_reserved_up_to_the_horizon_in_the_order_of_asking(limiting: Limiting) -> None:
    bucket = Bucket("a", 10, 5)
    assert admitted(limiting, bucket) == 5
    due = [limiting.tokens.lease([bucket], wanted=2, horizon_s=0.5, returned=0, if_away=CLOSED)[:2] for _ in range(4)]
    assert due == [(2, 200_000), (2, 400_000), (1, 500_000), (0, 600_000)]
    limiting.clock.advance(0.5)
    assert admitted(limiting, bucket) == 0


def test_what_is_given_back_can_be_taken_again(limiting: Limiting) -> None:
    bucket = Bucket("a", 1, 5)
    assert admitted(limiting, bucket) == 5
    taken = limiting.tokens.lease([bucket], wanted=5, horizon_s=0.0, returned=3, if_away=CLOSED)
    assert taken.tokens == 3


def test_giving_back_late_makes_no_tokens(limiting: Limiting) -> None:
    bucket = Bucket("a", 1, 5)
    assert admitted(limiting, bucket) == 5
    limiting.clock.advance(60)
    taken = limiting.tokens.lease([bucket], wanted=9, horizon_s=0.0, returned=5, if_away=CLOSED)
    assert taken.tokens == 5


def test_threads_together_get_no_more_than_one_alone(limiting: Limiting) -> None:
    bucket = Bucket("a", 1, 40)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: admitted(limiting, bucket, most=10), range(8)))
    assert sum(counts) == 40


# --- bytes


def test_a_chunk_is_given_in_the_parts_that_fit(limiting: Limiting) -> None:
    bucket = Bucket("a", 1000, 500)
    assert limiting.tokens.take([bucket], 800, if_away=CLOSED) == Admitted(500)
    assert limiting.tokens.take([bucket], 300, if_away=CLOSED) == Refused("a", 0.001)
    limiting.clock.advance(0.3)
    assert limiting.tokens.take([bucket], 800, if_away=CLOSED) == Admitted(300)


def test_every_level_is_charged_the_bytes_that_move(limiting: Limiting) -> None:
    cluster, host, job = Bucket("cluster", 1000, 10_000), Bucket("host", 1000, 2000), Bucket("job", 1000, 500)
    assert limiting.tokens.take([cluster, host, job], 4000, if_away=CLOSED) == Admitted(500)
    assert limiting.tokens.take([host], 4000, if_away=CLOSED) == Admitted(1500)
    assert limiting.tokens.take([cluster], 20_000, if_away=CLOSED) == Admitted(9500)


def test_gigabytes_a_second_are_counted_to_the_byte(limiting: Limiting) -> None:
    bucket = Bucket("a", 5_000_000_000, 5_000_000_000)
    assert limiting.tokens.take([bucket], 5_000_000_000, if_away=CLOSED) == Admitted(5_000_000_000)
    limiting.clock.advance(0.000001)
    assert limiting.tokens.take([bucket], 10_000, if_away=CLOSED) == Admitted(5000)


# --- concurrency


def test_no_more_leases_than_slots(limiting: Limiting) -> None:
    slots = Slots("a", 2)
    lease(limiting, slots)
    lease(limiting, slots)
    refused = limiting.leases.acquire([slots], if_away=CLOSED)
    assert isinstance(refused, Refused)
    assert refused.limit == "a"
    assert limiting.leases.held("a") == 2


def test_a_released_slot_is_free(limiting: Limiting) -> None:
    slots = Slots("a", 1)
    held = lease(limiting, slots)
    assert limiting.leases.release(held)
    assert limiting.leases.held("a") == 0
    lease(limiting, slots)


def test_releasing_twice_frees_nothing_that_is_anothers(limiting: Limiting) -> None:
    slots = Slots("a", 1)
    first = lease(limiting, slots)
    assert limiting.leases.release(first)
    lease(limiting, slots)
    assert not limiting.leases.release(first)
    assert limiting.leases.held("a") == 1


def test_a_made_up_lease_releases_nothing(limiting: Limiting) -> None:
    lease(limiting, Slots("a", 1))
    assert not limiting.leases.release(Lease("0" * 16, (Slots("a", 1),), 10.0))
    assert limiting.leases.held("a") == 1


def test_slots_are_taken_on_every_level_or_on_none(limiting: Limiting) -> None:
    outer, inner = Slots("outer", 5), Slots("inner", 1)
    lease(limiting, outer, inner)
    assert isinstance(limiting.leases.acquire([outer, inner], if_away=CLOSED), Refused)
    assert limiting.leases.held("outer") == 1


def test_the_slots_of_a_dead_holder_are_back_after_their_time(limiting: Limiting) -> None:
    slots = Slots("a", 1)
    dead = lease(limiting, slots, ttl_s=10)
    limiting.clock.advance(9.999)
    assert isinstance(limiting.leases.acquire([slots], if_away=CLOSED), Refused)
    limiting.clock.advance(0.001)
    lease(limiting, slots)
    assert not limiting.leases.release(dead)


def test_a_renewed_lease_lives_from_then_on(limiting: Limiting) -> None:
    slots = Slots("a", 1)
    held = lease(limiting, slots, ttl_s=10)
    for _ in range(5):
        limiting.clock.advance(9)
        limiting.leases.renew(held)
    assert limiting.leases.held("a") == 1


def test_a_lapsed_lease_cannot_be_renewed(limiting: Limiting) -> None:
    held = lease(limiting, Slots("a", 1), ttl_s=10)
    limiting.clock.advance(10)
    with pytest.raises(LeaseLost) as caught:
        limiting.leases.renew(held)
    assert caught.value == LeaseLost("a") or caught.value.limit == "a"
    assert limiting.leases.held("a") == 0


def test_a_released_lease_cannot_be_renewed(limiting: Limiting) -> None:
    held = lease(limiting, Slots("a", 1))
    limiting.leases.release(held)
    with pytest.raises(LeaseLost):
        limiting.leases.renew(held)


def test_a_shadow_of_slots_counts_beyond_its_limit(limiting: Limiting) -> None:
    shadow = Slots("a", 1, shadow=True)
    assert lease(limiting, shadow).used == (1,)
    assert lease(limiting, shadow, Slots("b", 5)).used == (2, 1)
    assert limiting.leases.held("a") == 2


def test_threads_together_hold_no_more_than_the_slots(limiting: Limiting) -> None:
    barrier = threading.Barrier(8)

    def acquire(_: int) -> bool:
        barrier.wait(10)
        return isinstance(limiting.leases.acquire([Slots("a", 3)], if_away=CLOSED), Lease)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(acquire, range(8))) == 3


# --- circuits


def test_failures_in_a_row_open_the_circuit(limiting: Limiting) -> None:
    for _ in range(4):
        limiting.breaker.failed(passage(limiting))
    assert limiting.breaker.state("a.example") is State.CLOSED
    limiting.breaker.failed(passage(limiting))
    assert limiting.breaker.state("a.example") is State.OPEN
    assert kept_out(limiting) == 30.0


def test_a_success_between_them_starts_the_count_anew(limiting: Limiting) -> None:
    for _ in range(3):
        for _ in range(4):
            limiting.breaker.failed(passage(limiting))
        limiting.breaker.succeeded(passage(limiting))
    assert limiting.breaker.state("a.example") is State.CLOSED


def test_one_probe_alone_passes_a_half_open_circuit(limiting: Limiting) -> None:
    opened(limiting)
    limiting.clock.advance(30)
    assert limiting.breaker.state("a.example") is State.HALF_OPEN
    assert passage(limiting).probe
    for _ in range(10):
        assert 0 < kept_out(limiting) <= 1.0


def test_threads_together_send_one_probe(limiting: Limiting) -> None:
    opened(limiting)
    limiting.clock.advance(30)
    barrier = threading.Barrier(8)

    def enter(_: int) -> bool:
        barrier.wait(10)
        return isinstance(limiting.breaker.enter("a.example", RULES, if_away=CLOSED), Passage)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enter, range(8))) == 1


def test_a_failed_probe_opens_the_circuit_for_another_while(limiting: Limiting) -> None:
    opened(limiting)
    limiting.clock.advance(31)
    limiting.breaker.failed(passage(limiting))
    assert kept_out(limiting) == 30.0


def test_probes_that_succeed_in_a_row_close_the_circuit(limiting: Limiting) -> None:
    opened(limiting)
    limiting.clock.advance(30)
    for _ in range(3):
        assert limiting.breaker.state("a.example") is State.HALF_OPEN
        limiting.breaker.succeeded(passage(limiting))
    assert limiting.breaker.state("a.example") is State.CLOSED
    assert not passage(limiting).probe


def test_a_closed_circuit_needs_the_whole_threshold_again(limiting: Limiting) -> None:
    opened(limiting)
    limiting.clock.advance(30)
    for _ in range(3):
        limiting.breaker.succeeded(passage(limiting))
    for _ in range(4):
        limiting.breaker.failed(passage(limiting))
    assert limiting.breaker.state("a.example") is State.CLOSED


def test_a_probe_that_fails_after_others_succeeded_opens_it_again(limiting: Limiting) -> None:
    opened(limiting)
    limiting.clock.advance(30)
    limiting.breaker.succeeded(passage(limiting))
    limiting.breaker.succeeded(passage(limiting))
    limiting.breaker.failed(passage(limiting))
    limiting.clock.advance(30)
    limiting.breaker.succeeded(passage(limiting))
    assert limiting.breaker.state("a.example") is State.HALF_OPEN


def test_a_probe_whose_holder_died_is_replaced_after_its_bound(limiting: Limiting) -> None:
    opened(limiting)
    limiting.clock.advance(30)
    dead = passage(limiting)
    limiting.clock.advance(59.5)
    assert kept_out(limiting) == 0.5
    limiting.clock.advance(0.5)
    fresh = passage(limiting)
    assert fresh.probe not in ("", dead.probe)
    limiting.breaker.failed(dead)
    assert limiting.breaker.state("a.example") is State.HALF_OPEN
    limiting.breaker.failed(fresh)
    assert limiting.breaker.state("a.example") is State.OPEN


def test_an_abandoned_probe_leaves_its_place_to_the_next(limiting: Limiting) -> None:
    opened(limiting)
    limiting.clock.advance(30)
    limiting.breaker.abandoned(passage(limiting))
    assert passage(limiting).probe


def test_verdicts_from_before_it_opened_change_nothing(limiting: Limiting) -> None:
    early = passage(limiting)
    opened(limiting)
    limiting.breaker.succeeded(early)
    limiting.breaker.failed(early)
    assert kept_out(limiting) == 30.0
    limiting.clock.advance(30)
    probe = passage(limiting)
    limiting.breaker.succeeded(early)
    limiting.breaker.abandoned(early)
    assert isinstance(limiting.breaker.enter("a.example", RULES, if_away=CLOSED), Refused)
    limiting.breaker.succeeded(probe)
    assert passage(limiting).probe


def test_a_hold_keeps_everybody_out_until_it_ends(limiting: Limiting) -> None:
    limiting.breaker.hold("a.example", 2.5)
    limiting.clock.advance(0.5)
    found = limiting.breaker.enter("a.example", RULES, if_away=CLOSED)
    assert found == Refused("retry-after:a.example", 2.0)
    assert limiting.breaker.state("a.example") is State.CLOSED
    limiting.clock.advance(2.0)
    passage(limiting)


def test_a_shorter_hold_does_not_end_a_longer_one(limiting: Limiting) -> None:
    limiting.breaker.hold("a.example", 5.0)
    limiting.breaker.hold("a.example", 1.0)
    assert kept_out(limiting) == 5.0


def test_a_hold_outlasts_successes_and_takes_no_probe(limiting: Limiting) -> None:
    before = passage(limiting)
    limiting.breaker.hold("a.example", 5.0)
    limiting.breaker.succeeded(before)
    assert kept_out(limiting) == 5.0
    limiting.clock.advance(5.0)
    opened(limiting)
    limiting.breaker.hold("a.example", RULES.open_s + 1)
    limiting.clock.advance(RULES.open_s)
    assert limiting.breaker.enter("a.example", RULES, if_away=CLOSED) == Refused("retry-after:a.example", 1.0)
    limiting.clock.advance(1.0)
    assert passage(limiting).probe


def test_circuits_do_not_know_of_each_other(limiting: Limiting) -> None:
    opened(limiting)
    assert isinstance(limiting.breaker.enter("b.example", RULES, if_away=CLOSED), Passage)

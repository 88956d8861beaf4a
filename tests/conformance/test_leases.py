"""Whatever keeps slots never gives more leases than there are, one by one or many at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gaia.errors import LeaseLost
from tasks.limits.protocols import Away, Lease, Refused, Slots
from tests.support.limits import Limiting

CLOSED = Away.FAIL_CLOSED


def lease(limiting: Limiting, *slots: Slots, ttl_s: float = 10.0) -> Lease:
    found = limiting.leases.acquire(slots, ttl_s=ttl_s, if_away=CLOSED)
    assert isinstance(found, Lease)
    return found


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


def test_a_lease_is_ended_once_and_on_every_level_or_on_none(limiting: Limiting) -> None:
    held = lease(limiting, Slots("a", 1), Slots("b", 1))
    for other in (Slots("c", 1), Slots("b", 1)._replace(name="d")):
        with pytest.raises(LeaseLost) as caught:
            limiting.leases.end(held._replace(slots=(held.slots[0], other)))
        assert caught.value.limit == other.name
    assert (limiting.leases.held("a"), limiting.leases.held("b")) == (1, 1)
    limiting.leases.end(held)
    assert (limiting.leases.held("a"), limiting.leases.held("b")) == (0, 0)
    with pytest.raises(LeaseLost) as caught:
        limiting.leases.end(held)
    assert caught.value.limit == "b"


def test_a_lapsed_lease_cannot_be_ended(limiting: Limiting) -> None:
    held = lease(limiting, Slots("a", 1), ttl_s=2.0)
    limiting.clock.advance(2.0)
    with pytest.raises(LeaseLost):
        limiting.leases.end(held)


def test_of_threads_that_end_one_lease_one_has_done_it(limiting: Limiting) -> None:
    held = lease(limiting, Slots("a", 1))

    def ends(_: int) -> bool:
        try:
            limiting.leases.end(held)
        except LeaseLost:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ends, range(8))) == 1


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


# --- many at once


def many(limiting: Limiting, count: int, *slots: Slots, ttl_s: float = 10.0) -> list[Lease]:
    found = limiting.leases.acquire_many(slots, count, ttl_s=ttl_s, if_away=CLOSED)
    assert isinstance(found, list)
    assert len({each.id for each in found}) == len(found)
    return found


def test_of_many_a_caller_gets_a_fourth_of_what_is_free_and_one_at_least(limiting: Limiting) -> None:
    outer, inner = Slots("outer", 100), Slots("inner", 20)
    first = many(limiting, 64, outer, inner)
    assert (len(first), first[0].used, first[-1].used) == (5, (5, 5), (5, 5))
    assert [len(many(limiting, 64, outer, inner)) for _ in range(10)] == [3, 3, 2, 1, 1, 1, 1, 1, 1, 1]
    assert isinstance(limiting.leases.acquire_many([outer, inner], 64, if_away=CLOSED), Refused)
    assert limiting.leases.held("outer") == 20


def test_a_shadow_bounds_no_many(limiting: Limiting) -> None:
    assert len(many(limiting, 10, Slots("a", 1, shadow=True))) == 10


def test_many_are_renewed_together_and_the_lost_are_named(limiting: Limiting) -> None:
    slots = Slots("a", 100), Slots("b", 100)
    found = many(limiting, 5, *slots)
    limiting.leases.release(found[2])
    limiting.clock.advance(9)
    lost, used = limiting.leases.renew_many(found)
    assert (lost, used) == ([(found[2], "a")], (4, 4))
    limiting.clock.advance(9)
    assert limiting.leases.held("b") == 4
    limiting.clock.advance(1)
    assert limiting.leases.held("b") == 0


def test_many_are_released_together_and_twice_changes_nothing(limiting: Limiting) -> None:
    found = many(limiting, 5, Slots("a", 100))
    other = lease(limiting, Slots("a", 100))
    assert limiting.leases.release_many(found) == 5
    assert limiting.leases.release_many(found) == 0
    assert limiting.leases.held("a") == 1
    assert limiting.leases.release(other)


def test_more_leases_than_one_step_takes_are_renewed_and_released(limiting: Limiting) -> None:
    slots = Slots("a", 100_000)
    found = [each for _ in range(9) for each in many(limiting, 64, slots)]
    limiting.clock.advance(9)
    assert limiting.leases.renew_many(found) == ([], (576,))
    assert limiting.leases.release_many(found) == 576
    assert limiting.leases.held("a") == 0

"""Leases that are handed over within a process."""

from collections.abc import Iterator

import pytest

from tasks.limits.memory import MemoryLeases
from tasks.limits.protocols import Away, Lease, Refused, Slots
from tasks.limits.renewal import CROWDED_LINGER_S, HANDED_OVER_S, LINGER_S, SOON_S, Renewal
from tests.support.limits import HeldTime
from tests.support.waiting import until

SLOTS = (Slots("slots:a.example", 1),)


class Field:
    """A limiter of one slot, and the renewal of one process."""

    def __init__(self) -> None:
        self.time = HeldTime()
        self.leases = MemoryLeases(self.time.clock())
        self.renewal = Renewal(self.leases, self.time.clock())

    def lease(self, slots: tuple[Slots, ...] = SLOTS) -> Lease:
        found = self.leases.acquire(slots, if_away=Away.FAIL_CLOSED)
        assert isinstance(found, Lease)
        return found

    @property
    def held(self) -> int:
        return self.leases.held("slots:a.example")


@pytest.fixture
def field() -> Iterator[Field]:
    made = Field()
    yield made
    made.renewal.close()


def test_the_next_request_has_the_lease_of_the_last(field: Field) -> None:
    held = field.renewal.keep(field.lease())
    field.renewal.linger(held)
    assert field.renewal.take((Slots("slots:b.example", 1),), 10.0) is None
    assert field.renewal.take(SLOTS, 10.0) is held
    assert field.renewal.take(SLOTS, 10.0) is None


@pytest.mark.parametrize(("limit", "linger_s"), [(1, CROWDED_LINGER_S), (10, LINGER_S)])
def test_what_nobody_takes_is_given_back_sooner_where_slots_are_scarce(
    field: Field, limit: int, linger_s: float
) -> None:
    slots = (Slots("slots:a.example", limit),)
    field.renewal.linger(field.renewal.keep(field.lease(slots)))
    field.time.advance(linger_s / 2)
    field.renewal.release_idle()
    assert field.held == 1
    field.time.advance(linger_s)
    field.renewal.release_idle()
    assert field.renewal.take(slots, 10.0) is None
    until(lambda: field.held == 0)  # the thread of its own may be giving it back


def test_once_slots_are_scarce_what_lingers_already_goes_back_sooner_too(field: Field) -> None:
    slots = (Slots("slots:a.example", 10),)
    field.renewal.linger(field.renewal.keep(field.lease(slots)))
    field.renewal.refused(slots, Refused("slots:a.example", 0.1))
    field.time.advance(CROWDED_LINGER_S)
    field.renewal.release_idle()
    assert field.renewal.take(slots, 10.0) is None
    until(lambda: field.held == 0)


def test_a_busy_process_lets_go_of_it_after_a_while(field: Field) -> None:
    held = field.renewal.keep(field.lease())
    field.time.advance(HANDED_OVER_S)
    field.renewal.linger(held)
    field.renewal.release_idle()
    assert (field.held, field.renewal.take(SLOTS, 10.0)) == (0, None)


def test_a_lost_lease_is_handed_to_nobody(field: Field) -> None:
    held = field.renewal.keep(field.lease())
    field.time.advance(held.lease.ttl_s + 1)
    field.renewal.renew_due()
    assert held.is_lost
    field.renewal.linger(held)
    assert field.renewal.take(SLOTS, 10.0) is None


def test_one_that_is_lost_while_it_lingers_is_handed_to_nobody(field: Field) -> None:
    held = field.renewal.keep(field.lease())
    field.renewal.linger(held)
    field.time.advance(held.lease.ttl_s + 1)
    field.renewal.renew_due()
    assert field.renewal.take(SLOTS, 10.0) is None


def test_closing_gives_back_what_lingers(field: Field) -> None:
    field.renewal.linger(field.renewal.keep(field.lease()))
    field.renewal.close()
    assert field.held == 0


MANY = (Slots("slots:a.example", 100),)


def taken(field: Field) -> int:
    """Take as the cluster's limits do; give how many leases that brought."""
    found = field.leases.acquire_many(MANY, field.renewal.wanted(MANY), if_away=Away.FAIL_CLOSED)
    assert isinstance(found, list)
    field.renewal.keep_many(found)
    return len(found)


def test_a_process_that_comes_back_soon_takes_more_and_more_ahead(field: Field) -> None:
    assert [taken(field) for _ in range(6)] == [1, 2, 4, 8, 16, 17]
    assert field.held == 48
    ahead = [field.renewal.take(MANY, 10.0) for _ in range(43)]
    assert None not in ahead[:42]
    assert ahead[42] is None


def test_what_was_taken_ahead_and_not_wanted_goes_back_and_makes_the_next_take_smaller(field: Field) -> None:
    assert [taken(field) for _ in range(4)] == [1, 2, 4, 8]
    field.time.advance(LINGER_S)
    field.renewal.release_idle()
    assert field.held == 4
    assert taken(field) == 2


def test_a_process_that_comes_back_late_takes_one(field: Field) -> None:
    assert [taken(field), taken(field)] == [1, 2]
    field.time.advance(SOON_S)
    assert taken(field) == 1


def test_where_slots_are_plenty_a_lease_is_handed_over_as_long_as_it_is_wanted(field: Field) -> None:
    found = field.leases.acquire(MANY, if_away=Away.FAIL_CLOSED)
    assert isinstance(found, Lease)
    held = field.renewal.keep(found)
    field.time.advance(HANDED_OVER_S)
    field.renewal.linger(held)
    assert field.renewal.take(MANY, 10.0) is held
    field.renewal.refused(MANY, Refused("slots:a.example", 0.1))
    field.renewal.linger(held)
    field.renewal.release_idle()
    assert field.held == 0


def test_a_refusal_is_known_for_its_time_to_all_of_the_process(field: Field) -> None:
    field.renewal.refused(MANY, Refused("slots:a.example", 0.1))
    field.time.advance(0.04)
    known = field.renewal.refusal(MANY)
    assert known is not None
    assert (known.limit, round(known.retry_after_s, 3)) == ("slots:a.example", 0.06)
    field.time.advance(0.06)
    assert field.renewal.refusal(MANY) is None


def test_a_renewal_tells_that_slots_have_become_few(field: Field) -> None:
    found = field.leases.acquire(MANY, if_away=Away.FAIL_CLOSED)
    assert isinstance(found, Lease)
    held = field.renewal.keep(found)
    for _ in range(50):
        field.leases.acquire(MANY, if_away=Away.FAIL_CLOSED)
    field.time.advance(held.lease.ttl_s / 2)
    field.renewal.renew_due()
    field.renewal.linger(held)
    assert field.renewal.take(MANY, 10.0) is None


def test_leases_that_are_due_soon_are_renewed_with_those_that_are_due(field: Field) -> None:
    first = field.leases.acquire(MANY, if_away=Away.FAIL_CLOSED)
    assert isinstance(first, Lease)
    early = field.renewal.keep(first)
    field.time.advance(1)
    second = field.leases.acquire(MANY, if_away=Away.FAIL_CLOSED)
    assert isinstance(second, Lease)
    late = field.renewal.keep(second)
    field.time.advance(2.4)
    field.renewal.renew_due()
    assert early.due_at == late.due_at

"""Leases that are handed over within a process."""

from collections.abc import Iterator

import pytest

from tasks.limits.memory import MemoryLeases
from tasks.limits.protocols import Away, Lease, Slots
from tasks.limits.renewal import HANDED_OVER_S, LINGER_S, Renewal
from tests.support.limits import HeldTime

SLOTS = (Slots("slots:a.example", 1),)


class Field:
    """A limiter of one slot, and the renewal of one process."""

    def __init__(self) -> None:
        self.time = HeldTime()
        self.leases = MemoryLeases(self.time.clock())
        self.renewal = Renewal(self.leases, self.time.clock())

    def lease(self) -> Lease:
        found = self.leases.acquire(SLOTS, if_away=Away.FAIL_CLOSED)
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


def test_what_nobody_takes_is_given_back(field: Field) -> None:
    field.renewal.linger(field.renewal.keep(field.lease()))
    field.time.advance(LINGER_S / 2)
    field.renewal.release_idle()
    assert field.held == 1
    field.time.advance(LINGER_S)
    field.renewal.release_idle()
    assert (field.held, field.renewal.take(SLOTS, 10.0)) == (0, None)


def test_a_busy_process_lets_go_of_it_after_a_while(field: Field) -> None:
    held = field.renewal.keep(field.lease())
    field.time.advance(HANDED_OVER_S)
    field.renewal.linger(held)
    assert (field.held, field.renewal.take(SLOTS, 10.0)) == (0, None)


def test_a_lost_lease_is_handed_to_nobody(field: Field) -> None:
    held = field.renewal.keep(field.lease())
    field.time.advance(held.lease.ttl_s + 1)
    field.renewal.renew_due()
    assert held.lost.is_set()
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

"""How many retries a host may have."""

from collections.abc import Sequence

from gaia.errors import Unreachable
from tasks.limits.memory import MemoryTokens
from tasks.limits.protocols import Admitted, Away, Bucket, Refused
from tasks.limits.retries import FLOOR_BURST, SAVED, Retries
from tests.support.limits import HeldTime


class Nobody:
    """A limiter without its Redis."""

    def admit(self, buckets: Sequence[Bucket], *, if_away: Away) -> Admitted | Refused:
        assert if_away is Away.FAIL_CLOSED
        raise Unreachable("redis://away", buckets[0].name)


def spent(retries: Retries, host: str = "a.example") -> int:
    """Spend until there is none left."""
    count = 0
    while retries.spend(host):
        count += 1
    return count


def test_ten_first_attempts_earn_one_retry() -> None:
    retries = Retries(Nobody())
    for _ in range(25):
        retries.earn("a.example")
    assert (spent(retries, "b.example"), spent(retries)) == (0, 2)


def test_what_is_saved_has_a_bound() -> None:
    retries = Retries(Nobody())
    for _ in range(SAVED * 2):
        retries.earn("a.example")
    assert spent(retries) == SAVED // 10


def test_a_rare_call_has_the_retries_that_the_cluster_shares() -> None:
    time = HeldTime()
    shared = MemoryTokens(time.clock())
    first, second = Retries(shared), Retries(shared)
    assert spent(first) + spent(second) == FLOOR_BURST
    time.advance(2.0)
    assert (spent(second), spent(first)) == (2, 0)

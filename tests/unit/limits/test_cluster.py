"""What a service meets: names in, leave out; what is a failure of a host, and what is not."""

import pytest

from config import settings
from gaia.errors import BadReply, Cancelled, CircuitOpen, ConnectFailed, LeaseLost, LimitExceeded
from gaia.store.limits import Limit
from tasks.limits.cluster import Limits
from tasks.limits.memory import MemoryLeases
from tasks.limits.policy import Policy, levels
from tasks.limits.protocols import Admitted, Away, Bucket, Lease, Refused, Rules, Slots
from tasks.limits.renewal import Renewal
from tasks.metrics import REGISTRY
from tasks.scope import Scope
from tests.support.limits import HeldTime

CLOSED = Away.FAIL_CLOSED
SCOPE = Scope.lasting(600)


def limits(**given: Limit) -> Limits:
    return Limits.in_memory(Policy(settings.Limits(), {name.replace("_", "."): each for name, each in given.items()}))


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_names_stack_from_the_cluster_inwards() -> None:
    assert levels(host="A.Example.", key="acme", job="7") == ("global", "a.example", "key:acme", "job:7")
    assert levels(within="pool:browser") == ("pool:browser",)
    assert levels(host="a", within=None) == ("a",)


def test_what_is_set_lies_over_the_settings() -> None:
    given = {"a.example": Limit(rate_per_s=50.0), "key:k": Limit(rate_per_s=5.0, burst=9, shadow=True)}
    policy = Policy(settings.Limits(host_rate_per_s=7.0, host_burst=8), given)
    assert policy.rates(("global", "a.example", "b.example", "key:k", "key:other")) == (
        Bucket("rate:global", 1000.0, 1000.0),
        Bucket("rate:a.example", 50.0, 50.0),
        Bucket("rate:b.example", 7.0, 8.0),
        Bucket("rate:key:k", 5.0, 9.0, shadow=True),
    )


def test_the_defaults_are_those_that_users_know() -> None:
    policy = Policy(settings.Limits(), {})
    assert policy.rates(levels(host="a.example")) == (Bucket("rate:global", 1000.0, 1000.0),)
    assert policy.bandwidths(levels(host="a.example")) == ()
    assert policy.slots(levels(host="a.example")) == ()
    assert policy.rules("a.example") == Rules(5, 30.0, 3, 60.0)


def test_rules_of_a_circuit_come_from_the_host_then_the_cluster_then_the_settings() -> None:
    given = {"a.example": Limit(open_s=1.0), "global": Limit(open_s=9.0, failure_threshold=2)}
    assert Policy(settings.Limits(), given).rules("a.example") == Rules(2, 1.0, 3, 60.0)


def test_bytes_move_in_the_parts_that_fit() -> None:
    found = limits(a_example=Limit(bytes_per_s=1000.0, burst_bytes=4000))
    assert 1 <= found.move(SCOPE, levels(host="a.example"), 10_000, if_away=CLOSED) < 10_000
    assert found.move(SCOPE, levels(host="b.example"), 10_000, if_away=CLOSED) == 10_000


def test_a_slot_is_held_inside_the_block_alone() -> None:
    found, names = limits(a_example=Limit(concurrency=1)), levels(host="a.example")
    for _ in range(2):
        with found.holding(SCOPE, names, if_away=CLOSED):
            assert count("gaia_limit_leases_held", level="host") == 1
            with pytest.raises(LimitExceeded), found.holding(Scope.lasting(0.01), names, if_away=CLOSED):
                pass
    assert count("gaia_limit_leases_held", level="host") == 0
    found.close()


def test_transient_errors_and_bad_answers_open_a_circuit_and_a_callers_own_do_not() -> None:
    found = limits()
    for error in [Cancelled("x"), BadReply("a", "b")] * 5:
        with pytest.raises(type(error)), found.trying("a.example", if_away=CLOSED):
            raise error
    for _ in range(4):
        with pytest.raises(ConnectFailed), found.trying("a.example", if_away=CLOSED):
            raise ConnectFailed("a", "b")
    with found.trying("a.example", if_away=CLOSED) as attempt:
        attempt.fail()
    with pytest.raises(CircuitOpen), found.trying("a.example", if_away=CLOSED):
        pass


def test_answers_are_counted_by_level() -> None:
    found, names = limits(a_example=Limit(rate_per_s=1.0, burst=1)), levels(host="a.example")
    labels = {"limit": "rate", "level": "host"}
    before = [count("gaia_limit_decisions_total", outcome=each, **labels) for each in ("admitted", "refused", "near")]
    assert isinstance(found.ask(names, if_away=CLOSED), Admitted)
    assert isinstance(found.ask(names, if_away=CLOSED), Refused)
    after = [count("gaia_limit_decisions_total", outcome=each, **labels) for each in ("admitted", "refused", "near")]
    assert [late - early for early, late in zip(before, after, strict=True)][:2] == [1, 1]
    assert after[2] > before[2]


def test_a_shadow_refuses_nothing_and_is_counted() -> None:
    found, names = limits(a_example=Limit(rate_per_s=1.0, burst=1, shadow=True)), levels(host="a.example")
    labels = {"limit": "rate", "level": "host", "outcome": "shadow_refused"}
    before = count("gaia_limit_decisions_total", **labels)
    assert all(isinstance(found.ask(names, if_away=CLOSED), Admitted) for _ in range(10))
    assert count("gaia_limit_decisions_total", **labels) - before == 9


def test_a_shadow_of_slots_counts_what_it_would_have_refused() -> None:
    found, names = limits(a_example=Limit(concurrency=1, shadow=True)), levels(host="a.example")
    labels = {"limit": "slots", "level": "host", "outcome": "shadow_refused"}
    before = count("gaia_limit_decisions_total", **labels)
    with found.holding(SCOPE, names, if_away=CLOSED), found.holding(SCOPE, names, if_away=CLOSED):
        assert count("gaia_limit_decisions_total", **labels) - before == 1
    found.close()


def test_a_lease_is_renewed_until_it_is_released_and_its_loss_is_found_out() -> None:
    time = HeldTime()
    leases = MemoryLeases(time.clock())
    renewal = Renewal(leases, time.clock())
    found = leases.acquire([Slots("slots:a", 1)], ttl_s=9, if_away=CLOSED)
    assert isinstance(found, Lease)
    held = renewal.keep(found)
    for _ in range(5):
        time.advance(4)
        renewal.renew_due()
    held.check()
    time.advance(10)
    renewal.renew_due()
    with pytest.raises(LeaseLost):
        held.check()
    assert not renewal.release(held)
    renewal.close()

"""Limits kept in Redis, for the whole cluster: every step is one script call, every time the server's.

Every key has the hash tag `{gaia:limits}` and expires: a bucket a minute after it has drained, slots two seconds
after their last lease lapsed, a circuit an hour after it opened or last failed.
"""

from collections.abc import Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final, NamedTuple

from gaia.errors import LeaseLost, Unreachable
from gaia.store import keys
from tasks.limits.circuit import SECOND_US
from tasks.limits.gcra import Taken
from tasks.limits.protocols import (
    HELD,
    LEASE_TTL_S,
    SLOT_POLL_S,
    Away,
    Bucket,
    Lease,
    Passage,
    Refused,
    Rules,
    Slots,
    State,
)
from tasks.limits.reach import Reach
from tasks.limits.tokens import Tokens

_STATES: Final = (State.CLOSED, State.OPEN, State.HALF_OPEN)


class SharedTokens(Tokens):
    """A `RateLimiter` and `ByteBucket`; each leave is a script call. `tasks.limits.ahead` makes it fewer."""

    def __init__(self, reach: Reach) -> None:
        """Ask this Redis."""
        self._reach = reach

    def lease(self, buckets: Sequence[Bucket], *, wanted: int, horizon_s: float, returned: int, if_away: Away) -> Taken:
        """Take tokens ahead; see `Tokens`."""
        names = [keys.bucket(each.name) for each in buckets]
        args: list[str | int | float] = [wanted, returned, round(horizon_s * SECOND_US)]
        for each in buckets:
            args += (repr(each.rate_per_s), repr(each.burst), int(each.shadow))
        found: Any = self._reach.unless_away(if_away, lambda: self._reach.script("take", names, args), lambda: None)
        if found is None:
            nothing = (0,) * len(buckets)
            return Taken(wanted, 0, 0, nothing, tuple(map(bool, nothing)), recorded=False)
        tokens, wait_us, refusing, *rest = found
        return Taken(tokens, wait_us, refusing, tuple(rest[::2]), tuple(map(bool, rest[1::2])))


class SharedLeases:
    """A `ConcurrencyLimiter`."""

    def __init__(self, reach: Reach) -> None:
        """Ask this Redis."""
        self._reach = reach

    def acquire(self, slots: Sequence[Slots], *, ttl_s: float = LEASE_TTL_S, if_away: Away) -> Lease | Refused:
        """Take a slot of every level, or of none."""
        lease = Lease(token_hex(8), tuple(slots), ttl_s, recorded=bool(slots))
        if not slots:
            return lease
        args: list[str | int | float] = [lease.id, round(ttl_s * SECOND_US)]
        for each in slots:
            args += (each.limit, int(each.shadow))
        found: Any = self._reach.unless_away(
            if_away, lambda: self._reach.script("acquire", _names(lease), args), lambda: None
        )
        if found is None:
            return lease._replace(recorded=False)
        refusing, *used = found
        return lease._replace(used=tuple(used)) if refusing < 0 else Refused(slots[refusing].name, SLOT_POLL_S)

    def renew(self, lease: Lease) -> None:
        """Hold a lease for another `ttl_s`."""
        if lease.recorded:
            lost: Any = self._reach.script("renew", _names(lease), [lease.id, round(lease.ttl_s * SECOND_US)])
            if lost >= 0:
                raise LeaseLost(lease.slots[lost].name)

    def release(self, lease: Lease) -> bool:
        """Give the slots back."""
        if not lease.recorded:
            return False
        try:
            return bool(self._reach.script("release", _names(lease), [lease.id]))
        except Unreachable:
            return False

    def held(self, name: str) -> int:
        """Give how many leases are held."""
        found: Any = self._reach.script("held", [keys.slots(name)], [])
        return int(found)


class Seen(NamedTuple):
    """What Redis said of a circuit.

    `out_us` is for `enter`: how long to stay out, -1 for the probe; `held` says that a hold is why.
    """

    state: State
    failures: int
    out_us: int
    held: bool = False


class SharedBreaker:
    """A `CircuitBreaker`; each step is a script call. `tasks.limits.view` makes it fewer."""

    def __init__(self, reach: Reach) -> None:
        """Ask this Redis."""
        self._reach = reach

    def enter(self, name: str, rules: Rules, *, if_away: Away) -> Passage | Refused:
        """Ask for leave to try."""
        return self.entered(name, rules, if_away=if_away)[0]

    def entered(self, name: str, rules: Rules, *, if_away: Away) -> tuple[Passage | Refused, Seen | None]:
        """Ask for leave to try; give what was seen, too, None while Redis is away."""
        passage = Passage(name, rules, token_hex(8))
        seen: Seen | None = self._reach.unless_away(if_away, lambda: self.step("enter", passage), lambda: None)
        if seen is None or not seen.out_us:
            return passage._replace(probe=""), seen
        return (passage if seen.out_us < 0 else Refused(refusing(name, seen.held), seen.out_us / SECOND_US)), seen

    def succeeded(self, passage: Passage) -> None:
        """Tell that it worked."""
        self._tell("succeeded", passage)

    def failed(self, passage: Passage) -> None:
        """Tell that it failed."""
        self._tell("failed", passage)

    def abandoned(self, passage: Passage) -> None:
        """Tell that nobody will know."""
        if passage.probe:
            self._tell("abandoned", passage)

    def hold(self, name: str, seconds: float) -> None:
        """Let nobody through for so long."""
        with suppress(Unreachable):
            self.step("hold", Passage(name, Rules()), hold_s=seconds)

    def state(self, name: str) -> State:
        """Give the state."""
        return self.step("look", Passage(name, Rules())).state

    def step(self, verb: str, passage: Passage, *, hold_s: float = 0.0) -> Seen:
        """Make one step of the state machine.

        Raises:
            Unreachable: Redis did not answer.
        """
        rules = passage.rules
        args: list[str | int | float] = [
            verb,
            passage.probe,
            rules.failure_threshold,
            round(rules.open_s * SECOND_US),
            rules.success_threshold,
            round(rules.probe_s * SECOND_US),
            keys.LIMITS_CHANNEL,
            round(hold_s * SECOND_US),
        ]
        found: Any = self._reach.script("circuit", [keys.circuit(passage.name)], args)
        state, failures, out_us, held = found
        return Seen(_STATES[state], failures, out_us, bool(held))

    def _tell(self, verb: str, passage: Passage) -> Seen | None:
        try:
            return self.step(verb, passage)
        except Unreachable:
            return None


def refusing(name: str, held: bool) -> str:  # noqa: FBT001 - what was seen, not a switch
    """Name what refuses: a hold, or the circuit."""
    return HELD + name if held else name


def _names(lease: Lease) -> list[str]:
    return [keys.slots(each.name) for each in lease.slots]

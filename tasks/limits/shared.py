"""Limits kept in Redis, for the whole cluster: every step is one script call, every time the server's.

Every key has the hash tag `{gaia:limits}` and expires: a bucket a minute after it has drained, slots two seconds
after their last lease lapsed, a circuit an hour after it opened or last failed, the index of those that are not closed
with the last of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final, NamedTuple

from gaia.errors import LeaseLost, Unreachable
from gaia.store import keys
from tasks.limits.circuit import SECOND_US
from tasks.limits.gcra import Taken
from tasks.limits.leasing import SHARE, Leases
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


class SharedLeases(Leases):
    """A `ConcurrencyLimiter`. Every bulk of it is one script call, of `MOST` leases at most."""

    MOST: Final = 250

    def __init__(self, reach: Reach) -> None:
        """Ask this Redis."""
        self._reach = reach

    def acquire_many(
        self, slots: Sequence[Slots], many: int, *, ttl_s: float = LEASE_TTL_S, if_away: Away
    ) -> list[Lease] | Refused:
        """Take slots of every level, or of none."""
        first = Lease(token_hex(8), tuple(slots), ttl_s, recorded=bool(slots))
        if not slots:
            return [first] * many
        # One draw of random bits for all of them: each costs a call of the kernel.
        ids = [first.id, *(f"{first.id}-{number}" for number in range(1, min(many, self.MOST)))]
        args: list[str | int | float] = [round(ttl_s * SECOND_US), SHARE]
        for each in slots:
            args += (each.limit, int(each.shadow))
        found: Any = self._reach.unless_away(
            if_away, lambda: self._reach.script("acquire", _names(slots), [*args, *ids]), lambda: None
        )
        if found is None:
            return [first._replace(recorded=False)]
        refusing, *rest = found
        if refusing >= 0:
            return Refused(slots[refusing].name, SLOT_POLL_S)
        given, *used = rest
        return [first._replace(id=each, used=tuple(used)) for each in ids[:given]]

    def renew_many(self, leases: Sequence[Lease]) -> tuple[list[tuple[Lease, str]], tuple[int, ...]]:
        """Hold leases for another `ttl_s`."""
        lost: list[tuple[Lease, str]] = []
        used: tuple[int, ...] = ()
        for part in self._parts(leases):
            slots, life_us = part[0].slots, round(part[0].ttl_s * SECOND_US)
            found: Any = self._reach.script("renew", _names(slots), [life_us, *(each.id for each in part)])
            missing, used = found[: len(part)], tuple(found[len(part) :])
            lost += [(each, slots[at].name) for each, at in zip(part, missing, strict=True) if at >= 0]
        return lost, used

    def release_many(self, leases: Sequence[Lease]) -> int:
        """Give the slots back."""
        held = 0
        with suppress(Unreachable):
            for part in self._parts(leases):
                found: Any = self._reach.script("release", _names(part[0].slots), [each.id for each in part])
                held += int(found)
        return held

    def _parts(self, leases: Sequence[Lease]) -> Iterator[Sequence[Lease]]:
        recorded = [each for each in leases if each.recorded]
        for start in range(0, len(recorded), self.MOST):
            yield recorded[start : start + self.MOST]

    def end(self, lease: Lease) -> None:
        """Give the slots back, all or none."""
        lost: Any = self._reach.script("end", _names(lease.slots), [lease.id])
        if lost >= 0:
            raise LeaseLost(lease.slots[lost].name)

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
        found: Any = self._reach.script("circuit", [keys.circuit(passage.name), keys.CIRCUITS], args)
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


def _names(slots: Sequence[Slots]) -> list[str]:
    return [keys.slots(each.name) for each in slots]

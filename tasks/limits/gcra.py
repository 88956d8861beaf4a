"""The generic cell rate algorithm, over a stack of buckets, as arithmetic.

ITU-T I.371 and ATM Forum TM 4.0 (section 4.4.2) define it twice, as virtual scheduling and as the continuous-state
leaky bucket, and show that both admit the same. This is the second form. Its state is a level `X` and the time of the
last admission, `LCT`:

    X' = max(0, X - (now - LCT) * rate)
    conforming if X' + n <= burst; then X = X' + n, LCT = now

Virtual scheduling keeps one number, the theoretical arrival time TAT = LCT + X / rate, and needs the same division at
every step. Here times are whole microseconds and levels millionths of a token, so a whole rate makes every step
exact: the edge is hit to the microsecond, nothing drifts, and a rate that is changed needs no conversion. Doubles
hold that up to bursts of 9e9; a fractional rate is off by 1e-16 of the level. `lua/take.lua` is this module's twin;
tests compare them.

Three things go beyond the source. `wanted` tokens are taken in one step, fewer if fewer are there. And tokens may be
reserved: the level passes `burst` by what drains until they are due, at most `horizon` from now. So whoever asks
first is served first, and a crowd that waits asks once each. And a level is never taken for more than twice the
burst, nor a last time for one to come: a rate set lower, or a server's clock set back, keeps nobody waiting for what
was.
"""

from collections.abc import MutableMapping, Sequence
from math import ceil
from typing import Final, NamedTuple

from tasks.limits.protocols import Bucket

UNIT: Final = 1_000_000.0
"""Levels are in millionths of a token: what drains in a microsecond is then the rate."""

NEAR: Final = 0.8
"""A bucket that is fuller is near its limit."""

FULLEST: Final = 2.0
"""Times the burst: what may be reserved is never more, see `tasks.limits.ahead`."""

Level = tuple[float, float]
"""X and LCT."""


class Taken(NamedTuple):
    """What a stack gave: `tokens`, due in `wait_us`. 0 tokens: bucket `refusing` has one in `wait_us`.

    For each bucket: how many of the tokens a shadow would have refused, and whether it is near its limit. `recorded` is
    False for leave that was given while the authority was away.
    """

    tokens: int
    wait_us: int
    refusing: int
    shadowed: tuple[int, ...]
    near: tuple[bool, ...]
    recorded: bool = True


def take(
    levels: MutableMapping[str, Level],
    buckets: Sequence[Bucket],
    *,
    now_us: float,
    wanted: int,
    horizon_us: float = 0.0,
    returned: int = 0,
) -> Taken:
    """Take up to `wanted` tokens of every bucket, after giving back `returned` that were taken before and not used."""
    drained = [max(0.0, _drained(levels, each, now_us) - returned * UNIT) for each in buckets]
    tokens, wait, refusing = _fit(buckets, drained, wanted, horizon_us)
    shadowed, near = [], []
    for each, level in zip(buckets, drained, strict=True):
        fits = max(0, min(tokens, int((each.burst * UNIT - level) // UNIT))) if each.shadow else tokens
        shadowed.append(tokens - fits)
        if fits or returned or levels.get(each.name, (0.0, now_us))[1] > now_us:
            levels[each.name] = (level + fits * UNIT, now_us)
        near.append(level + fits * UNIT > NEAR * each.burst * UNIT)
    return Taken(tokens, ceil(wait), refusing, tuple(shadowed), tuple(near))


def _drained(levels: MutableMapping[str, Level], bucket: Bucket, now_us: float) -> float:
    level, last = levels.get(bucket.name, (0.0, now_us))
    level = min(level, FULLEST * bucket.burst * UNIT)
    return max(0.0, level - max(0.0, now_us - last) * bucket.rate_per_s)


def _fit(buckets: Sequence[Bucket], drained: Sequence[float], wanted: int, horizon_us: float) -> tuple[int, float, int]:
    """Give tokens, wait and the refusing bucket: at once if one token is there, else all due within the horizon."""
    bounds = [(each, level) for each, level in zip(buckets, drained, strict=True) if not each.shadow]
    if not bounds:
        return wanted, 0.0, 0
    now = min((each.burst * UNIT - level) // UNIT for each, level in bounds)
    if now >= 1:
        return min(wanted, int(now)), 0.0, 0
    due = min((each.burst * UNIT - level + horizon_us * each.rate_per_s) // UNIT for each, level in bounds)
    tokens = max(0, min(wanted, int(due)))
    waits = [
        0.0 if each.shadow else (level + max(tokens, 1) * UNIT - each.burst * UNIT) / each.rate_per_s
        for each, level in zip(buckets, drained, strict=True)
    ]
    longest = max(waits)
    return tokens, longest, waits.index(longest)

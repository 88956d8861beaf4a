"""Whether a quantity grows with the calls: by its slope under load, and by what is left at rest."""

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.soak.samples import Quantity, Sample

MOST_POINTS = 120
"""More samples are drawn together, by medians: Theil-Sen looks at every pair."""

LEAST_POINTS = 8
Z = 2.576
"""Of the normal distribution: 99 % of it lie within."""

MIB = 1024 * 1024


@dataclass(frozen=True)
class Slope:
    """Per 1000 calls, with the bounds of its 99 % confidence interval."""

    per_1000: float
    low: float
    high: float


@dataclass(frozen=True)
class Bound:
    """What a quantity may do.

    At rest it may be `slack` over what it was after the warm-up, and `per_1000` more for 1000 calls. Under load it
    grows if even the lower bound of its slope is over `slope`, and it rose by what that slope makes of the calls:
    `least` at least, for few calls show a slope where there is none, and no more than `most`.
    """

    slack: float = 0.0
    per_1000: float = 0.0
    slope: float = math.inf
    least: float = math.inf
    most: float = math.inf

    def rise(self, calls: int) -> float:
        """Give by how much it may rise in so many calls."""
        return max(self.least, min(self.most, self.slope * calls / 1000))

    def sees(self, calls: int) -> float:
        """Give the growth of 1000 calls from which on so many show it; what `rise` sees is three quarters of all."""
        return max(self.slope, self.rise(calls) * 4 / 3 * 1000 / max(1, calls))


OF_MEMORY = Bound(slack=24 * MIB, slope=2 * MIB, least=3 * MIB, most=8 * MIB)

BOUNDS: Sequence[tuple[str, Bound]] = (
    ("redis: keys with an end: {gaia:dns}:*", Bound(slack=20, per_1000=1000)),
    ("redis: keys with an end: {gaia:limits}:*", Bound(slack=20, per_1000=1000)),
    ("redis: keys with an end: celery-task-meta-*", Bound(slack=20, per_1000=1000)),
    ("redis: keys with an end: gaia:*", Bound(slack=20, per_1000=500)),
    # One of 256 for each path, by its hash; they stay.
    ("disk: files/.gaia/locks/[*]", Bound(slack=256)),
    # Of as many programs as ran at once, empty, for the next ones.
    ("disk: tmp/gaia-process-[*]/run-[*]", Bound(slack=4)),
    ("redis: memory used, bytes", Bound(slack=1 * MIB)),
    # What it frees it keeps: `memory used` tells.
    ("redis: *, bytes", Bound(slack=math.inf)),
    # Each worker keeps the connections that it once needed at the same time; the server has those of all.
    ("redis: clients", Bound(slack=12)),
    ("redis: descriptors", Bound(slack=12)),
    ("redis: tcp sockets", Bound(slack=12)),
    # Chromium's: it starts and ends processes and threads of its own.
    ("browser: below it: resident, bytes", Bound(slack=400 * MIB)),
    ("browser: below it: threads", Bound(slack=40)),
    ("browser: below it: descriptors", Bound(slack=100)),
    ("browser: children", Bound(slack=4)),
    # Tabs that are open and in no use; as many as were used at once.
    ("browser: live: idle_tabs", Bound(slack=4)),
    ("browser: live: warm_tabs", Bound(slack=4)),
    ("browser: below it: renderers", Bound(slack=4)),
    ("*: below it: resident, bytes", Bound(slack=64 * MIB)),
    ("*: below it: threads", Bound(slack=4)),
    ("*: below it: descriptors", Bound(slack=40)),
    ("process: children", Bound(slack=4)),
    ("*: children", Bound()),
    ("*: tcp sockets", Bound(slack=3)),
    ("*: udp sockets", Bound(slack=3)),
    ("*: descriptors", Bound(slack=4)),
    ("*: threads", Bound(slack=2)),
    ("*: resident, bytes", OF_MEMORY),
    ("*: private, bytes", OF_MEMORY),
    ("*", Bound()),
)
"""The first that fits the quantity counts; see docs/reliability.md for the measurements behind them."""


@dataclass(frozen=True)
class Row:
    """What became of a quantity: the difference at rest, for so many calls, and the slope under load."""

    quantity: Quantity
    before: float
    after: float
    calls: int
    slope: Slope | None
    rise: float
    bound: Bound

    @property
    def grown(self) -> float:
        return self.after - self.before

    @property
    def per_1000(self) -> float:
        """Give what was left at rest, for 1000 calls of its owner."""
        return self.grown * 1000 / max(1, self.calls)

    @property
    def leaks(self) -> bool:
        """Say whether it did what it may not."""
        left = self.grown > self.bound.slack + self.bound.per_1000 * self.calls / 1000
        grows = self.slope is not None and self.slope.low > self.bound.slope
        return left or (grows and self.rise > self.bound.rise(self.calls))

    def __str__(self) -> str:
        slope = f", under load {self.slope.low:+,.1f} to {self.slope.high:+,.1f}" if self.slope else ""
        return (
            f"{self.quantity}: {self.before:,.0f} -> {self.after:,.0f} in {self.calls} calls, "
            f"{self.per_1000:+,.1f} per 1000{slope}"
        )


def judge(before: Sample, during: Sequence[Sample], after: Sample) -> list[Row]:
    """Compare two moments of rest, and look at what was between them."""
    rows = []
    for quantity in sorted(before.values.keys() | after.values.keys()):
        calls = after.calls_of(quantity.owner) - before.calls_of(quantity.owner)
        points = [
            (float(each.calls_of(quantity.owner)), each.values[quantity]) for each in during if quantity in each.values
        ]
        points = condense(points, MOST_POINTS)
        values = before.values.get(quantity, 0.0), after.values.get(quantity, 0.0)
        rows.append(Row(quantity, *values, calls, theil_sen(points), rise(points), bound_of(quantity)))
    return rows


def bound_of(quantity: Quantity) -> Bound:
    return next(bound for pattern, bound in BOUNDS if fnmatch.fnmatchcase(str(quantity), pattern))


def condense(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Put medians in the place of neighbours, so that no more points are left."""
    size = math.ceil(len(points) / most)
    blocks = [points[start : start + size] for start in range(0, len(points), max(1, size))]
    return [(median(x for x, _ in each), median(y for _, y in each)) for each in blocks]


def rise(points: Sequence[tuple[float, float]]) -> float:
    """Give by how much the last quarter is over the first one, by their medians."""
    quarter = max(1, len(points) // 4)
    values = [y for _, y in points]
    return median(values[-quarter:]) - median(values[:quarter]) if values else 0.0


def theil_sen(points: Sequence[tuple[float, float]]) -> Slope | None:
    """Give the median of the slopes of all pairs, None of too few points.

    Sen, Journal of the American Statistical Association 63 (1968): the interval is cut from the ordered slopes by the
    variance of Kendall's statistic. It takes the points for independent; neighbours of a process's memory are not, so
    the interval is narrower than it should be. `rise` is asked for besides.
    """
    count = len(points)
    slopes = sorted(
        (points[j][1] - points[i][1]) / (points[j][0] - points[i][0]) * 1000
        for i in range(count)
        for j in range(i + 1, count)
        if points[j][0] != points[i][0]
    )
    if count < LEAST_POINTS or not slopes:
        return None
    spread = Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, round((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return Slope(median(slopes), slopes[low], slopes[high])

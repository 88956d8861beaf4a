"""A row of the matrix: a fault, what it has to fire, and the account of what it fired."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.faults.field import QUEUES, Field
from tests.faults.scaling import Rule, alerts
from tests.faults.watch import Seen
from tests.support import prometheus

RULES: Final = alerts(prometheus.RULES)

LONGEST_S: Final = 3600.0
"""An alert over a longer window need not end before the row does: at any scale it would take hours."""

MECHANISMS_S: Final = 120.0
"""What the cluster itself may take to notice, in real time: the monitor's minute without a word of a worker, leases,
rounds of health. Nothing of that is divided."""


OBSERVERS: Final = frozenset({"GaiaMonitorDown", "GaiaWorkerNotScraped"})
"""What fires if the machine has no CPU left for those who watch."""

STALLED_S: Final = 0.5
"""A look at the alerts takes milliseconds. One that took longer than this is such a machine's."""


class Fault:
    """Made and cleared in a field; what it is expected to fire is said beforehand."""

    name: ClassVar[str]
    what: ClassVar[str]
    expected: ClassVar[tuple[str, ...]]
    allowed: ClassVar[tuple[str, ...]] = ()
    """Companions: they may fire, and need not."""
    environ: ClassVar[dict[str, str]] = {}
    holds_s: ClassVar[float] = 0.0
    """How long it lasts at least, under the committed rules' times."""

    @contextmanager
    def prepared(self, directory: Path) -> Iterator[None]:
        """Have ready what has to be there before the cluster."""
        del directory
        yield

    def make(self, field: Field) -> None:
        raise NotImplementedError

    def clear(self, field: Field) -> None:
        raise NotImplementedError


@dataclass
class Fired:
    """An alert that fired, in seconds under the committed rules' times."""

    after_s: float
    measured_s: float
    """From the fault to when the expression was true, as the clock went."""
    ended_s: float | None
    """From the end of the fault; None if it still fires."""
    expected: bool


@dataclass
class Account:
    """What came of a row."""

    row: str
    what: str
    factor: float
    fired: dict[str, Fired] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    starved: list[str] = field(default_factory=list)
    """Of `OBSERVERS`, what fired while the machine kept the watch waiting, too: told, not held against the row."""
    lasting: list[str] = field(default_factory=list)
    """Expected, fired, and did not end."""
    silent: int = 0
    calls: int = 0
    took_s: float = 0.0
    stalled_s: float = 0.0
    """The longest that whoever watched was kept waiting, see `Watch.stalled_s`."""
    error: str = ""

    @property
    def sound(self) -> bool:
        return not (self.missing or self.unexpected or self.lasting or self.error)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "sound": self.sound}


def run(fault: Fault, directory: Path, factor: float, *, queues: Iterable[str] = QUEUES) -> Account:
    """Make a fault in a cluster of its own; give the account."""
    account, began = Account(fault.name, fault.what, factor), time.monotonic()
    try:
        with (
            fault.prepared(directory),
            Field(directory, factor, queues=tuple(queues), environ=fault.environ) as field,
        ):
            field.settle()
            field.watch.forget()
            _fill(account, fault, field)
            account.calls = field.load.submitted
    except (AssertionError, OSError) as failure:
        account.error = f"{type(failure).__name__}: {failure}"
    account.took_s = round(time.monotonic() - began, 1)
    return account


def _fill(account: Account, fault: Fault, field: Field) -> None:
    made_at = time.time()
    fault.make(field)
    slowest = max([fault.holds_s, *(_reach_s(RULES[each]) for each in fault.expected)])
    if field.fires(fault.expected, MECHANISMS_S + field.real_s(slowest * 1.5)):
        field.pause(max(0.0, made_at + field.real_s(fault.holds_s) - time.time()))
        # Who comes late shall be seen, too.
        field.pause(field.real_s(120))
    cleared_at = time.time()
    fault.clear(field)
    _await_end(fault, field)
    account.stalled_s = round(field.watch.stalled_s, 2)
    judge(account, fault, field.watch.seen(), made_at, cleared_at)


def judge(account: Account, fault: Fault, seen: Mapping[str, Seen], made_at: float, cleared_at: float) -> None:
    """Say of everything that was seen when it fired and ended, and whether it should have."""
    for name, each in sorted(seen.items(), key=lambda item: item[1].fired_at):
        rule, onset_s = RULES[name], max(0.0, each.true_at - made_at)
        ended_s = None if each.ended_at is None else max(0.0, each.ended_at - cleared_at)
        account.fired[name] = Fired(
            after_s=round(onset_s * _onset_factor(rule, account.factor) + rule.for_s, 1),
            measured_s=round(onset_s, 1),
            ended_s=None if ended_s is None else round(ended_s * _end_factor(rule, account.factor), 1),
            expected=name in fault.expected,
        )
    account.missing = [each for each in fault.expected if each not in seen]
    strangers = [each for each in account.fired if each not in (*fault.expected, *fault.allowed)]
    account.starved = [each for each in strangers if each in OBSERVERS and account.stalled_s > STALLED_S]
    account.unexpected = [each for each in strangers if each not in account.starved]
    account.lasting = [each for each in fault.expected if each in seen and account.fired[each].ended_s is None]
    account.silent = len(RULES) - len(seen)


def _await_end(fault: Fault, field: Field) -> None:
    """Wait until what fires has ended, but for what looks over hours."""
    field.pause(field.real_s(60))
    names = [each for each in RULES if RULES[each].window_s <= LONGEST_S]
    windows = [RULES[each].window_s for each in {*field.watch.seen(), *fault.expected} if each in names]
    field.ends(names, MECHANISMS_S + field.real_s(max([0.0, *windows]) * 1.5))


def _reach_s(rule: Rule) -> float:
    """Give how long a fault has to last at most until the alert fires."""
    return rule.for_s + rule.age_s + min(rule.window_s, LONGEST_S)


def _onset_factor(rule: Rule, factor: float) -> float:
    """Give what a measured time until an expression is true has to be multiplied by.

    What looks at this instant, or for the first count in a window, waits for the cluster alone, whose times are real.
    What needs its window to fill waits for that.
    """
    fills = rule.age_s or (rule.window_s and not rule.counts)
    return factor if fills else 1.0


def _end_factor(rule: Rule, factor: float) -> float:
    return 1.0 if rule.window_s == 0 else factor

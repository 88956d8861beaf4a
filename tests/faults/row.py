"""A row of the matrix: a fault, what it has to fire, and the account of what it fired."""

import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.faults.field import QUEUES, Field
from tests.faults.scaling import SCRAPE, Rule, alerts, duration_s
from tests.faults.watch import Alert, Seen, Stall
from tests.support import prometheus
from tests.support.disks import NotPermittedError

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
    subject: ClassVar[str] = ""
    """The worker or queue that it is made to: an alert that names another one is neither expected nor allowed."""
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
        """End it, also if it was made in part only."""
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
    """Fired, whether it may or not, and did not end."""
    silent: int = 0
    calls: int = 0
    """What the load submitted."""
    ended_well: int = 0
    """Runs that ended well, of workers that live at the end."""
    looks: int = 0
    """How often Prometheus said which alerts fire, since the fault."""
    due_looks: int = 0
    """How often it should have, if the machine had all the time."""
    took_s: float = 0.0
    stalled_s: float = 0.0
    """The longest that whoever watched was kept waiting, of the times that excuse an alert."""
    error: str = ""
    not_run: str = ""
    """Why it was not even tried."""

    @property
    def watched(self) -> bool:
        """Say whether there was a load, and somebody who looked: silence is worth nothing without."""
        return min(self.calls, self.ended_well) > 0 and self.looks >= max(1, self.due_looks // 2)

    @property
    def sound(self) -> bool:
        faultless = not (self.missing or self.unexpected or self.lasting or self.error)
        return bool(self.not_run) or (faultless and self.watched)

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
            account.calls, account.ended_well = field.load.submitted, field.ended_well()
    except NotPermittedError as refused:
        account.not_run = str(refused)
    except Exception as failure:  # noqa: BLE001 - the next row is tried whatever it is
        account.error = f"{type(failure).__name__}: {failure}"
        (directory / "failure.txt").write_text(traceback.format_exc())
    account.took_s = round(time.monotonic() - began, 1)
    return account


def _fill(account: Account, fault: Fault, field: Field) -> None:
    made_at = time.time()
    try:
        fault.make(field)
        slowest = max([fault.holds_s, *(_reach_s(RULES[each]) for each in fault.expected)])
        if field.fires(fault.expected, MECHANISMS_S + field.real_s(slowest * 1.5), fault.subject):
            field.pause(max(0.0, made_at + field.real_s(fault.holds_s) - time.time()))
            # Who comes late shall be seen, too.
            field.pause(field.real_s(120))
        cleared_at = time.time()
    finally:
        fault.clear(field)
    _await_end(fault, field)
    account.looks, account.due_looks = field.watch.looks, int((time.time() - made_at) / field.watch.every_s)
    judge(account, fault, field.watch.seen(), made_at, cleared_at, field.watch.stalls())


def judge(
    account: Account,
    fault: Fault,
    seen: Mapping[Alert, Seen],
    made_at: float,
    cleared_at: float,
    stalls: Sequence[Stall] = (),
) -> None:
    """Say of everything that was seen when it fired and ended, and whether it should have."""
    known = _by_name(fault, seen)
    for name, (rule, each) in known.items():
        onset_s = max(0.0, each.true_at - made_at)
        ended_s = None if each.ended_at is None else max(0.0, each.ended_at - cleared_at)
        account.fired[name] = Fired(
            after_s=round(onset_s * _onset_factor(rule, account.factor) + rule.for_s, 1),
            measured_s=round(onset_s, 1),
            ended_s=None if ended_s is None else round(ended_s * _end_factor(rule, account.factor), 1),
            expected=name in fault.expected,
        )
    account.missing = [each for each in fault.expected if each not in known]
    for name in known.keys() - {*fault.expected, *fault.allowed}:
        kept_s = _kept_waiting_s(*known[name], stalls, account.factor)
        (account.starved if kept_s > STALLED_S else account.unexpected).append(name)
        account.stalled_s = max(account.stalled_s, round(kept_s, 2))
    # What looks over longer than the row lasts cannot end with it.
    account.lasting = [
        name for name, (rule, each) in known.items() if each.ended_at is None and rule.window_s <= LONGEST_S
    ]
    account.silent = len(RULES) - len({each.name for each in seen})


def _by_name(fault: Fault, seen: Mapping[Alert, Seen]) -> dict[str, tuple[Rule, Seen]]:
    """Give what was seen by the alert's name, of all whom it may be about together; of others by their names, too."""
    found: dict[str, tuple[Rule, Seen]] = {}
    for alert, each in sorted(seen.items(), key=lambda item: item[1].fired_at):
        name = alert.name if alert.is_about(fault.subject) else str(alert)
        _, known = found.get(name, (None, each))
        ends = [each.ended_at, known.ended_at]
        last = None if None in ends else max(end for end in ends if end is not None)
        first = Seen(min(each.true_at, known.true_at), min(each.fired_at, known.fired_at), last)
        found[name] = (RULES[alert.name], first)
    return found


def _kept_waiting_s(rule: Rule, seen: Seen, stalls: Sequence[Stall], factor: float) -> float:
    """Give the longest stall that may have fired one of `OBSERVERS`: that a scrape before it, or it, fell into."""
    if rule.name not in OBSERVERS:
        return 0.0
    from_s = seen.true_at - 2 * duration_s(SCRAPE) / factor
    return max(
        [each.length_s for each in stalls if each.ended_at >= from_s and each.began_at <= seen.fired_at], default=0.0
    )


def _await_end(fault: Fault, field: Field) -> None:
    """Wait until what fires has ended, but for what looks over hours."""
    field.pause(field.real_s(60))
    names = [each for each in RULES if RULES[each].window_s <= LONGEST_S]
    fired = {each.name for each in field.watch.seen()}
    windows = [RULES[each].window_s for each in {*fired, *fault.expected} if each in names]
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

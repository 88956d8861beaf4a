"""The committed rules with their times divided, so that an alert of an hour takes minutes.

What is divided: `for`, ranges, steps and offsets in expressions, and thresholds of ages, which grow by a second each
second, and of the age of a process. What is not: rates (they are by the second anyway), quantiles of run and wait
times, counts within a window, and `gaia_loop_age_seconds`, whose five seconds are a machine's, not a rule's.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
import yaml

AGES: Final = frozenset(
    {"celery_queue_oldest_task_age_seconds", "gaia_delayed_overdue_seconds", "gaia_monitor_sample_age_seconds"}
)

YOUTH: Final = "process_start_time_seconds"
"""Taken from `time()` it is an age, too: that of a process."""

SCRAPE: Final = "30s"

_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_DURATION: Final = r"(?:\d+(?:ms|[smhdwy]))+"
_PLACE: Final = re.compile(
    rf"{_STRING}|(?P<range>\[\s*{_DURATION}\s*(?::\s*(?:{_DURATION})?\s*)?\])|\boffset\s+-?{_DURATION}"
)
_AGE: Final = re.compile(rf"{_STRING}|(\b(?:{'|'.join(sorted(AGES))}|time\(\) - {YOUTH})\s*[<>]=?\s*)(\d+(?:\.\d+)?)")


class NotScalableError(ValueError):
    """An expression holds a time in a place where it is not looked for."""


@dataclass(frozen=True)
class Rule:
    """What is known of an alert."""

    name: str
    for_s: float
    window_s: float
    """The longest range that it, or a rule it reads, looks over."""
    age_s: float
    """What it compares an age with."""
    counts: bool
    """It fires upon the first count, or the first sample, in its window: only its end takes the window's time."""


def duration_s(text: str) -> float:
    """Give the seconds of a duration of Prometheus'."""
    return promql.parse_duration(text).total_seconds()


def divided(text: str, factor: float) -> str:
    """Give a duration divided, in whole milliseconds."""
    return f"{max(1, round(duration_s(text) * 1000 / factor))}ms"


def scaled_expr(expr: str, factor: float) -> str:
    """Give an expression with its times divided.

    Raises:
        NotScalableError: if what came of it is not the same expression with every time divided.
    """
    found = _PLACE.sub(lambda place: _shortened(place, factor), expr)
    found = _AGE.sub(lambda place: place[0] if place[1] is None else f"{place[1]}{float(place[2]) / factor:g}", found)
    before, after = promql.parse(expr), promql.parse(found)
    if [round(each / factor, 3) for each in times_s(before)] != [round(each, 3) for each in times_s(after)]:
        raise NotScalableError(expr)
    return found


def _shortened(place: re.Match[str], factor: float) -> str:
    if place[0].startswith('"'):
        return place[0]
    return re.sub(_DURATION, lambda each: divided(each[0], factor), place[0])


def times_s(expr: promql.Expr) -> list[float]:
    """Give every time in an expression: ranges, steps, offsets, and what ages are compared with."""
    return [*spans_s(expr), *ages_s(expr)]


def spans_s(expr: promql.Expr, kinds: Sequence[str] = ("range", "step", "offset")) -> list[float]:
    """Give the ranges, steps and offsets, or some of these."""
    given = [getattr(node, kind, None) for node in nodes(expr) for kind in kinds]
    return [each.total_seconds() for each in given if isinstance(each, timedelta)]


def ages_s(expr: promql.Expr) -> list[float]:
    """Give what ages are compared with."""
    return [each.rhs.val for each in _compared(expr) if _is_age(each.lhs)]


def _compared(expr: promql.Expr) -> list[promql.BinaryExpr]:
    found = [each for each in nodes(expr) if isinstance(each, promql.BinaryExpr)]
    return [each for each in found if isinstance(each.rhs, promql.NumberLiteral)]


def _is_age(expr: Any) -> bool:
    return getattr(expr, "name", None) in AGES or (
        isinstance(expr, promql.BinaryExpr) and getattr(expr.rhs, "name", None) == YOUTH
    )


def _reached_s(expr: promql.Expr) -> float:
    """Give the age that something has to reach until it is told of; that a process is young takes no time."""
    return max([0.0, *(each.rhs.val for each in _compared(expr) if getattr(each.lhs, "name", None) in AGES)])


def nodes(expr: promql.Expr) -> list[Any]:
    """Give every node of an expression, from the top; a range's own selector is one."""
    found: list[Any] = []

    def visit(node: promql.Expr) -> None:
        found.append(node)
        if isinstance(node, promql.MatrixSelector):
            found.append(node.vector_selector)

    promql.walk(expr, visit)
    return found


# --- files


def scaled_rules(text: str, factor: float) -> str:
    """Give a file of rules with its times divided."""
    given = yaml.safe_load(text)
    for rule in _rules(given):
        rule["expr"] = scaled_expr(rule["expr"], factor)
        if "for" in rule:
            rule["for"] = divided(rule["for"], factor)
    return yaml.safe_dump(given, sort_keys=False)


def scaled_config(factor: float, rules: Path) -> Callable[[str], str]:
    """Give what divides the times of the configuration; it reads the rules in a directory.

    Scrapes are half as often, and may take as long as their interval: a machine does not answer faster because times
    are divided.
    """

    def change(text: str) -> str:
        text = text.replace("rules/*.yml", f"{rules}/*.yml")
        if factor == 1:
            return text
        text = text.replace("scrape_timeout: 10s", f"scrape_timeout: {SCRAPE}")
        text = text.replace("scrape_interval: 15s", f"scrape_interval: {SCRAPE}")
        return re.sub(rf"(_interval|_timeout): ({_DURATION})", lambda at: f"{at[1]}: {divided(at[2], factor)}", text)

    return change


def _rules(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for group in given["groups"]:
        yield from group["rules"]


# --- what is known of the alerts


def alerts(files: list[Path]) -> dict[str, Rule]:
    """Read the alerts of files of rules, as they are committed."""
    rules = [rule for path in files for rule in _rules(yaml.safe_load(path.read_text()))]
    records = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    return {
        rule["alert"]: Rule(
            rule["alert"],
            duration_s(rule["for"]) if "for" in rule else 0.0,
            _window_s(rule["expr"], records),
            _reached_s(promql.parse(rule["expr"])),
            _counts(promql.parse(rule["expr"])),
        )
        for rule in rules
        if "alert" in rule
    }


def _window_s(expr: str, records: Mapping[str, str]) -> float:
    """Give the longest range in an expression, what it reads by record included."""
    parsed = promql.parse(expr)
    names = {getattr(each, "name", None) for each in nodes(parsed)}
    inner = [_window_s(records[name], records) for name in names & records.keys() if name is not None]
    return max([0.0, *spans_s(parsed), *inner])


def _counts(expr: Any) -> bool:
    """Say whether an expression is an increase, or a maximum over time, compared with nothing."""
    top = expr
    while isinstance(top, promql.BinaryExpr) and not isinstance(top.rhs, promql.NumberLiteral):
        top = top.lhs  # of alternatives, the first
    if not isinstance(top, promql.BinaryExpr) or top.rhs.val != 0:
        return False
    names = {each.func.name for each in nodes(top.lhs) if isinstance(each, promql.Call)}
    return bool(names & {"increase", "max_over_time"})

"""Samples to text: medians, with the spread from the least to the most beside them."""

import statistics
from collections.abc import Mapping
from typing import Final

Samples = dict[str, dict[str, list[dict[str, float]]]]
"""Row, then contender, then one set of figures a round."""

TITLES: Final = {
    "empty": "Empty task",
    "incr": "One Redis call in the task",
    "result": "Empty task, result stored",
    "events": "Empty task, task events on",
    "submit": "Submit one by one",
    "submit_many": "Submit in bulk",
    "latency": "Submit to start, idle worker",
    "idle": "Idle worker",
    "recovery": "kill -9 of a worker to the next start of its call, default settings",
}
UNITS: Final = {
    "per_s": "per second",
    "cpu_us": "CPU, µs each",
    "server_us": "Redis CPU, µs each",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "percent": "% of a core",
    "after_s": "seconds",
}
WHOLE: Final = 100
"""Numbers from here on are shown without decimals."""


def line(figures: Mapping[str, float]) -> str:
    """Give one sample on one line."""
    return ", ".join(f"{_number(value)} {UNITS[name]}" for name, value in figures.items())


def tables(samples: Samples) -> str:
    """Give a Markdown table a row of the benchmark."""
    return "".join(f"\n### {TITLES[row]}\n\n{_table(found)}\n" for row, found in samples.items())


def _table(found: Mapping[str, list[dict[str, float]]]) -> str:
    names = list(next(iter(found.values()))[0])
    lines = [
        "| | " + " | ".join(UNITS[each] for each in names) + " |",
        "|---" + "|---:" * len(names) + "|",
    ]
    for contender, rounds in found.items():
        cells = [_spread([each[name] for each in rounds]) for name in names]
        lines.append(f"| {contender} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= WHOLE else f"{value:.3g}"

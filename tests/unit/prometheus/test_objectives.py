"""What the budgets say of hours: quiet and busy, long and short. An alert that fires at any minute counts."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import gaia.errors
from gaia.errors import GaiaError
from tests.support import rules
from tests.support.prometheus import FOLDER
from tests.support.rules import RECORDING, RECORDS, Case


class Phase(NamedTuple):
    """Minutes in which so many calls end well, and so many go wrong, each minute."""

    minutes: int
    well: float
    wrong: float = 0


QUIET = Phase(380, 0.2)
"""A call each five minutes."""
CALM = Phase(10, 0.2)
"""Longer than the window of a rate: what was busy before is out of it."""
MILLION = Phase(25, 40_000)
ONE, FIVE = Phase(1, 1, 1), Phase(5, 0.2, 1)
"""One call goes wrong; five do."""

FAST, MEDIUM, SLOW = (f"GaiaErrorBudgetBurn{each}" for each in ("Fast", "Medium", "Slow"))
DAY = "GaiaAvailabilityViolated"
LATE_FAST, LATE_MEDIUM = "GaiaWaitBudgetBurnFast", "GaiaWaitBudgetBurnMedium"

ERRORS: dict[str, tuple[Sequence[Phase], set[str]]] = {
    "one of a million, in a quiet minute of the hour": ((QUIET, MILLION, CALM, ONE, CALM), set()),
    "five of a million, in quiet minutes of the hour": ((QUIET, MILLION, CALM, FIVE, CALM), set()),
    "one in quiet hours": ((QUIET, ONE, CALM), set()),
    "one in a new Prometheus": ((Phase(6, 20), ONE, Phase(60, 20)), set()),
    "one, the second call of all, in a new Prometheus": ((ONE, Phase(400, 0.2)), set()),
    "half of all, in a new Prometheus": ((Phase(20, 30, 30),), {FAST}),
    "half of all, few as they are": ((QUIET, Phase(60, 0.1, 0.1)), {FAST, MEDIUM, DAY}),
    "a twentieth, after quiet hours": ((QUIET, Phase(30, 1000, 50)), {FAST, MEDIUM, DAY}),
    "a twentieth for a while, of a busy day": ((Phase(1200, 1000), Phase(10, 950, 50), Phase(60, 1000)), set()),
    "a twentieth for a while longer": ((Phase(1200, 1000), Phase(30, 950, 50), Phase(60, 1000)), {FAST, DAY, SLOW}),
    "a hundredth, for less than an hour and a half": ((Phase(85, 990, 10),), set()),
    "a hundredth, for longer than that": ((Phase(120, 990, 10),), {MEDIUM}),
    "a hundredth, for six hours": ((Phase(380, 990, 10),), {MEDIUM, DAY}),
    "three in a thousand, for less than six hours": ((Phase(350, 997, 3),), set()),
    "three in a thousand, for twenty hours": ((Phase(1200, 997, 3),), {DAY, SLOW}),
    "half of all, and then no calls at all": ((QUIET, Phase(1, 1, 1), Phase(90, 0)), set()),
}
"""What goes wrong by the cluster's own fault, and all that fires."""

LATE: dict[str, tuple[Sequence[Phase], set[str]]] = {
    "five of a million, in quiet minutes of the hour": ((QUIET, MILLION, CALM, FIVE, CALM), set()),
    "one in quiet hours": ((QUIET, ONE, CALM), set()),
    "a fifth, in a new Prometheus": ((Phase(20, 80, 20),), {LATE_FAST}),
    "a tenth, for an hour": ((Phase(60, 90, 10),), set()),
    "a tenth, for two hours": ((Phase(120, 90, 10),), {LATE_MEDIUM}),
}
"""What starts late, and all that fires."""


def counter(rates: Sequence[tuple[int, float]], first: float = 2) -> str:
    """Give a counter that rises as fast as each phase says."""
    values, now = [f"{first:g}"], first
    for minutes, per_minute in rates:
        values.append(rules.rising(per_minute, round(now + per_minute, 6), minutes - 1))
        now = round(now + minutes * per_minute, 6)
    return " ".join(values)


def failing(phases: Sequence[Phase]) -> Case:
    return rules.ended(
        counter([(each.minutes, each.well) for each in phases]),
        counter([(each.minutes, each.wrong) for each in phases]),
    )


def starting_late(phases: Sequence[Phase]) -> Case:
    return rules.started(
        counter([(each.minutes, each.well) for each in phases]),
        counter([(each.minutes, each.well + each.wrong) for each in phases]),
    )


def said(promtool: Path, folder: Path, series: Case, minute: int, expected: dict[str, dict[str, float]]) -> str:
    """Give what promtool says against what expressions should give at a minute, by labels; nothing if all is well."""
    asked = [
        {
            "expr": expr,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in sorted(found.items())],
        }
        for expr, found in expected.items()
    ]
    test = {"interval": "1m", "input_series": rules.told(series), "promql_expr_test": asked}
    given: dict[str, Any] = {
        "rule_files": [str(RECORDING), str(FOLDER / "rules" / "slo.yml")],
        # What takes hours need not be looked at each minute: each look goes back over three days.
        "evaluation_interval": "5m" if minute > 100 else "1m",
        "tests": [test],
    }
    (folder / "cases.yml").write_text(yaml.safe_dump(given))
    command = [promtool, "test", "rules", folder / "cases.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def fired(phases: Sequence[Phase], names: set[str]) -> tuple[int, dict[str, dict[str, float]]]:
    """Give the minute after the last, and that these alerts have fired until then, and no others."""
    minute = sum(each.minutes for each in phases)
    expr = f'count by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{minute + 1}m]))'
    return minute, {expr: {f'{{alertname="{name}"}}': 1 for name in names}}


@pytest.mark.parametrize("what", ERRORS)
def test_what_goes_wrong_fires_what_it_spends_the_budget_of(promtool: Path, tmp_path: Path, what: str) -> None:
    phases, names = ERRORS[what]
    assert said(promtool, tmp_path, failing(phases), *fired(phases, names)) == ""


@pytest.mark.parametrize("what", LATE)
def test_what_starts_late_fires_what_it_spends_the_budget_of(promtool: Path, tmp_path: Path, what: str) -> None:
    phases, names = LATE[what]
    assert said(promtool, tmp_path, starting_late(phases), *fired(phases, names)) == ""


def test_every_call_weighs_the_same(promtool: Path, tmp_path: Path) -> None:
    """30 of 300 in ten minutes, none of 299 700 in the next ten: 1 of 10 000. By minutes it would be 5 %."""
    phases = (Phase(40, 0), Phase(10, 27, 3), Phase(10, 29_970), Phase(5, 0))
    windows = ("30m", "1h", "6h", "1d", "3d")
    wanted = {f"round(1e6 * gaia:slo_errors:ratio_rate{window})": {"{}": 100.0} for window in windows}
    counts = {f"round(gaia:slo_errors:increase{window})": {"{}": 30.0} for window in ("1h", "6h", "1d", "3d")}
    assert said(promtool, tmp_path, failing(phases), 65, wanted | counts) == ""
    late = {f"round(1e6 * gaia:slo_wait:ratio_rate{window})": {"{}": 100.0} for window in ("30m", "1h", "6h")}
    assert said(promtool, tmp_path, starting_late(phases), 65, late) == ""


def test_without_an_error_there_is_a_rate_of_none_for_each_of_calls_and_without_a_call_no_ratio(
    promtool: Path, tmp_path: Path
) -> None:
    series = {
        each: values for each, values in failing((Phase(30, 60), Phase(370, 0))).items() if "gaia_errors" not in each
    }
    both: dict[str, dict[str, float]] = {
        f"count_over_time(gaia:slo_{of}:rate5m[1h])": {"{}": 30} for of in ("errors", "operations")
    }
    windows = ("30m", "1h", "6h", "1d", "3d")
    none = {f"gaia:slo_errors:ratio_rate{each}": {f"gaia:slo_errors:ratio_rate{each}": 0.0} for each in windows}
    assert said(promtool, tmp_path, series, 30, both | none) == ""
    gone: dict[str, dict[str, float]] = {f"gaia:slo_errors:ratio_rate{each}": {} for each in ("5m", "30m", "1h", "6h")}
    assert said(promtool, tmp_path, series, 400, gone) == ""


def test_what_the_objective_blames_the_cluster_for_are_errors_of_ours() -> None:
    (rule,) = [each for each in RECORDS if each["record"] == "gaia:slo_errors:rate5m"]
    for name in re.findall(r'error=~"([^"]+)"', rule["expr"])[0].split("|"):
        assert issubclass(getattr(gaia.errors, name), GaiaError)

"""The committed rules, and the series that are given to them, in promtool's notation: a value a minute."""

from itertools import chain
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.prometheus import FOLDER, RULES

RECORDING: Final = FOLDER / "rules" / "recording.yml"
FILES: Final[dict[Path, list[dict[str, Any]]]] = {
    path: yaml.safe_load(path.read_text())["groups"] for path in sorted(RULES)
}
GROUPS: Final = list(chain.from_iterable(FILES.values()))
ALERTS: Final = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDS: Final = [rule for group in GROUPS for rule in group["rules"] if "record" in rule]

Case = dict[str, str]
"""Series to their values."""

W: Final = 'instance="w@h",worker="w@h",job="gaia-workers"'
"""Whose they are."""


def rising(per_minute: float, first: float, steps: int) -> str:
    """Give a counter that rises by so many a minute."""
    return f"{first:.12g}+{per_minute:.12g}x{steps}"


def told(series: Case) -> list[dict[str, str]]:
    """Give series as promtool takes them."""
    return [{"series": each, "values": values} for each, values in series.items()]


def ended(ok: str, error: str, name: str = "InternalError") -> Case:
    """Give runs that ended well, and runs that ended in an error."""
    return {
        f'gaia_errors_total{{operation="api.x",error="{name}",{W}}}': error,
        f'gaia_operations_total{{operation="api.x",outcome="ok",{W}}}': ok,
        f'gaia_operations_total{{operation="api.x",outcome="error",{W}}}': error,
    }


def started(in_time: str, every: str) -> Case:
    """Give runs that started within ten seconds, and all runs that started."""
    return {
        f'gaia_queue_wait_seconds_bucket{{operation="api.x",{W},le="10.0"}}': in_time,
        f'gaia_queue_wait_seconds_count{{operation="api.x",{W}}}': every,
    }

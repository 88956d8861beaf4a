"""The dashboards as Grafana reads them: their files, panels and queries."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.cluster import ROOT

FOLDER = ROOT / "config" / "grafana" / "dashboards"
FILES: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


@dataclass(frozen=True)
class Query:
    """One target of a panel."""

    board: str
    panel: str
    expr: str

    def __str__(self) -> str:
        return f"{self.board}: {self.panel}"


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the panels of a dashboard without the headings."""
    return [each for each in board["panels"] if each["type"] != "row"]


def queries() -> Iterator[Query]:
    """Give every target of every panel."""
    for name, board in FILES.items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield Query(name, panel["title"], target["expr"])


def filled(expr: str, *, rate_interval: str = "5m", shown: str = "1h") -> str:
    """Put in place what Grafana puts in place when everything is chosen."""
    expr = expr.replace("$__rate_interval", rate_interval).replace("$__range", shown)
    return re.sub(r"\$\w+", ".+", expr)


def states(dom: str) -> Counter[str]:
    """Count the panels of the monitor's page by what became of them."""
    return Counter(re.findall(r'<section class="panel \w+" data-state="(\w+)"', dom))

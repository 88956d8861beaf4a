"""The dashboards as one page without Grafana: made of the same JSON, drawn by scripts of its own.

The page holds no figure and no secret; it asks Prometheus for what it shows, through the monitor or, as a file, itself.
It loads nothing: scripts and styles stand in it, and its policy allows just these.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from string import Template
from typing import Any, Final
from urllib.parse import urlsplit

from tasks.runtime.pages import Page

SCRIPTS: Final = ("format.js", "chart.js", "asking.js", "main.js")
KIND: Final = "text/html; charset=utf-8"

FIRST: Final = (
    "overview",
    "slo",
    "delivery",
    "api",
    "files",
    "browser",
    "process",
    "network",
    "limits",
    "cost",
    "workers",
)
"""In which order they are offered; others follow."""


def served() -> Page:
    """Give the page as the monitor serves it."""
    policy = _policy("'self'")
    fields = {
        "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Page(_page(".", "the monitor", "").encode(), kind=KIND, fields=fields)


def file(address: str) -> str:
    """Give the page as a file that asks the Prometheus at an address itself; that has to allow it (CORS)."""
    parts = urlsplit(address)
    policy = _policy(f"{parts.scheme}://{parts.netloc}")
    return _page(
        address, f"Prometheus at {address}", f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    )


@cache
def boards() -> tuple[dict[str, Any], ...]:
    """Give what the page needs of every dashboard."""
    folder = resources.files("config") / "grafana" / "dashboards"
    found = {
        path.name.removesuffix(".json"): path.read_text() for path in folder.iterdir() if path.name[-5:] == ".json"
    }
    order = sorted(found, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    return tuple(_board(json.loads(found[name])) for name in order)


def _board(board: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: board[name] for name in ("uid", "title", "description")},
        "choices": [_choice(each) for each in board["templating"]["list"] if each["type"] == "query"],
        "panels": [_panel(each) for each in board["panels"]],
    }


def _choice(variable: Mapping[str, Any]) -> dict[str, str]:
    metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]  # our own form
    return {"label": label, "metric": metric, "title": variable["label"]}


def _panel(panel: Mapping[str, Any]) -> dict[str, Any]:
    if panel["type"] == "row":
        return {"type": "row", "title": panel["title"]}
    looks = panel["fieldConfig"]["defaults"]
    return {
        **{name: panel[name] for name in ("type", "title", "description")},
        "width": panel["gridPos"]["w"],
        "unit": looks["unit"],
        "most": looks.get("max"),
        "steps": looks["thresholds"]["steps"],
        "stacked": looks.get("custom", {}).get("stacking", {}).get("mode") == "normal",
        "targets": [
            {"expr": each["expr"], "legend": each["legendFormat"], "instant": bool(each.get("instant"))}
            for each in panel["targets"]
        ],
    }


def _page(prometheus: str, asked: str, policy: str) -> str:
    setup = json.dumps({"prometheus": prometheus, "asked": asked, "boards": boards()}, separators=(",", ":"))
    # Within a script element nothing is escaped, and `<` is all that could end it.
    parts = {"setup": setup.replace("<", "\\u003c"), "script": _script(), "style": _style(), "policy": policy}
    return Template(_text("page.html")).substitute(parts)


def _policy(connect: str) -> str:
    return (
        f"default-src 'none'; script-src {_hash(_script())}; style-src {_hash(_style())}; connect-src {connect}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _script() -> str:
    return "\n".join(
        _text(name).replace('"use strict";\n', '"use strict";\n' if name == SCRIPTS[0] else "") for name in SCRIPTS
    )


@cache
def _style() -> str:
    return _text("page.css")


def _text(name: str) -> str:
    return (resources.files("tasks.monitor") / "page" / name).read_text()

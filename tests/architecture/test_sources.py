"""The house rules that a parser can hold."""

import ast
from pathlib import Path

from tests.support.cluster import ROOT

NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc", "base_classes"}

SOURCES = sorted(
    path for folder in ("client/gaia", "tasks", "config", "docker") for path in (ROOT / folder).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_module_says_what_it_is_for() -> None:
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [relative(path) for path in SOURCES + TESTS if path.stem in NAMES_THAT_SAY_NOTHING]


def test_no_test_sleeps_in_a_loop_of_events() -> None:
    sleeping = [
        f"{relative(path)}:{node.lineno}"
        for path in TESTS
        if path.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and sleeps(node)
    ]
    assert not sleeping


def sleeps(call: ast.Call) -> bool:
    """Say whether it is `asyncio.sleep`; that of 0 only lets others run."""
    lets_others_run = bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
    return ast.unparse(call.func) == "asyncio.sleep" and not lets_others_run

"""The rules of the house that a tool can hold."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.cli import settings

ROOT = Path(__file__).parents[2]
FUNCTION_LINES = 60
FILE_LINES = 450


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


PACKAGES = list(sources("client/gaia", "tasks", "config"))


def test_layers_point_down() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_files_and_functions_stay_readable() -> None:
    for path in PACKAGES:
        text = path.read_text()
        if path.name != "errors.py":  # a list, read by name
            assert len(text.splitlines()) <= FILE_LINES
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                lines = (node.end_lineno or 0) - node.lineno - len(docstring.splitlines())
                assert lines <= FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", [each for each in PACKAGES if each.name == "__init__.py"], ids=str)
def test_a_package_file_holds_a_docstring_alone(path: Path) -> None:
    if path == ROOT / "client/gaia/__init__.py":
        return  # the façade, which imports lazily
    assert len(ast.parse(path.read_text()).body) == 1


def test_no_test_sleeps() -> None:
    sleepers = [
        path for path in sources("tests") if re.search(r"^[^#\"']*\btime\.sleep\(", path.read_text(), re.MULTILINE)
    ]
    assert sleepers == []


def test_importing_the_client_imports_neither_redis_nor_celery() -> None:
    code = "import sys, gaia; print(sorted({'redis', 'celery', 'kombu', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_hold_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "--hash=sha256:" in text
    assert not re.search(r"https?://|--index-url|--find-links|file:", text)


def test_the_page_of_settings_is_up_to_date() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings.page(), "gaia settings --markdown > docs/settings.md"


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, _, purpose in settings.rows() if not purpose] == []


KNOWN = {
    *(".ci", ".dockerignore", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"),
    *("Procfile", "README.md", "benchmarks", "client", "config", "docker", "docs", "pyproject.toml"),
    *("requirements-dev.lock", "requirements.lock", "tasks", "tests"),
}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="NOT CHECKED: this is no clone")
def test_nothing_is_kept_that_was_made_or_installed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {each.partition("/")[0] for each in listed.splitlines()} <= KNOWN

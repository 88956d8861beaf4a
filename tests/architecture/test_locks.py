"""What is installed is named, to the byte, and from wherever an index serves it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.cluster import ROOT

RUNTIME, DEVELOPMENT = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
LOCKS = (RUNTIME, DEVELOPMENT)


def entries(lock: Path) -> dict[str, tuple[Requirement, list[str]]]:
    """Give name to requirement and hashes."""
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for block in re.split(r"\n(?=\S)", lock.read_text().strip()):
        head, *hashes = [line.strip().rstrip("\\").strip() for line in block.splitlines()]
        requirement = Requirement(head)
        found[canonicalize_name(requirement.name)] = (requirement, hashes)
    return found


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_distribution_is_pinned_by_version_and_hash(lock: Path) -> None:
    for requirement, hashes in entries(lock).values():
        assert [each.operator for each in requirement.specifier] == ["=="]
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)


@pytest.mark.parametrize("folder", [ROOT, ROOT / "client"], ids=["workers", "client"])
def test_what_a_distribution_asks_for_is_locked(folder: Path) -> None:
    locked = entries(RUNTIME)
    for requirement in map(Requirement, project(folder)["project"]["dependencies"]):
        if requirement.name != "gaia-client":
            found, _ = locked[canonicalize_name(requirement.name)]
            (pin,) = found.specifier
            assert requirement.specifier.contains(pin.version, prereleases=True)


def test_what_development_asks_for_is_locked() -> None:
    locked = entries(DEVELOPMENT)
    asked = [each for each in project(ROOT)["dependency-groups"]["dev"] if isinstance(each, str)]
    assert {canonicalize_name(Requirement(each).name) for each in asked} <= locked.keys()


def test_both_locks_agree() -> None:
    runtime, development = entries(RUNTIME), entries(DEVELOPMENT)
    for name in runtime.keys() & development.keys():
        assert runtime[name][0].specifier == development[name][0].specifier

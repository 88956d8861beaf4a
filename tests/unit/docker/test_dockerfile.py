import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
LINES = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()


def instructions(stage: str) -> list[str]:
    """Give the instructions of a stage, those of the stages that it builds on first."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in LINES:
        opening = re.fullmatch(r"FROM (\S+) AS (\S+)", line)
        if opening:
            base, name = opening.groups()
            found[name] = list(found.get(base, ()))
        elif name and line and not line.startswith("#"):
            found[name].append(line)
    return found[stage]


TARGETS = ("worker", "browser")


def test_the_linter_has_no_remark() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint has no wheel for this machine")
    ended = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_a_fixed_user_that_is_not_root(target: str) -> None:
    users = [line for line in instructions(target) if line.startswith("USER")]
    assert users[-1] == "USER 10001:10001"


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_the_gaia_command(target: str) -> None:
    assert 'ENTRYPOINT ["tini", "--", "gaia"]' in instructions(target)


def test_no_health_check_is_inherited() -> None:
    assert not [line for line in LINES if line.startswith("HEALTHCHECK")]


def test_dependencies_are_installed_by_their_hashes_and_both_distributions_for_good() -> None:
    runs = [line for line in instructions("builder") if "pip install" in line]
    assert runs == [
        "RUN pip install --require-hashes -r requirements.lock",
        "RUN pip install --no-deps --no-build-isolation ./client .",
    ]


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    copies = [line.split()[1:-1] for line in LINES if line.startswith("COPY") and "--from" not in line]
    sources = {source for each in copies for source in each}
    assert all((ROOT / source).exists() for source in sources)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == sources

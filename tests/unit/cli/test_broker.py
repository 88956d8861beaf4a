"""A Redis that does not answer, and the hint to the one that was meant."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from config.settings import read
from tasks.cli import broker
from tasks.cli.server import is_free
from tasks.cli.state import StateDir
from tests.support import cluster

HINT = 'a cluster runs in .gaia: eval "$(gaia env)" leads to it'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateDir]:
    """The state directory that the running cluster of the current directory holds."""
    monkeypatch.chdir(tmp_path)
    state = StateDir(tmp_path / ".gaia")
    state.create()
    with state.locked():
        yield state


def test_the_cluster_that_runs_here_is_named_where_settings_name_none(here: StateDir) -> None:
    assert broker.hint(read({})) == ""
    here.announce({"GAIA_REDIS_URL": "redis://127.0.0.1:1/0"})
    assert broker.hint(read({})) == HINT
    assert broker.hint(read({"GAIA_REDIS_URL": "redis://127.0.0.1:2/0"})) == ""


def test_an_answer_is_enough(redis_url: str) -> None:
    broker.require(redis_url, "unused")


@pytest.mark.parametrize(("hint", "end"), [("", "refused."), ("do this", "refused; do this")])
def test_no_answer_is_told_with_the_hint(hint: str, end: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        broker.require("redis://:hunter22@127.0.0.1:1/0", hint)
    assert "127.0.0.1:1/0 cannot be reached: " in str(caught.value)
    assert str(caught.value).endswith(end)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("command", [["worker", "api"], ["monitor"], ["flower"]])
def test_a_program_that_would_wait_for_no_redis_says_which_was_meant(here: StateDir, command: list[str]) -> None:
    if not is_free("127.0.0.1", 6379):
        pytest.skip("a Redis has the default port, so no hint is due")
    here.announce({"GAIA_REDIS_URL": "redis://127.0.0.1:1/0"})
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tasks.cli.main", *command],
        env=cluster.clean_environ(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.rstrip().endswith(HINT)

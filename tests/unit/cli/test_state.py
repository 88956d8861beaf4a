import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tasks.cli.state import StateDir

VARIABLES = {"GAIA_REDIS_URL": "redis://127.0.0.1:1/0", "GAIA_ARTIFACTS__URL": "/a directory\nof 'two' lines=2"}

pytestmark = pytest.mark.usefixtures("umask_open")


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path / "state")
    made.create()
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_directory_is_for_its_user_alone(state: StateDir) -> None:
    assert mode(state.path) == 0o700


def test_what_was_made_is_told_from_its_top(tmp_path: Path) -> None:
    assert StateDir(tmp_path / "a" / "b").create() == tmp_path / "a"
    assert StateDir(tmp_path / "a" / "c").create() == tmp_path / "a" / "c"
    assert StateDir(tmp_path / "a" / "b").create() is None


def test_a_directory_that_was_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    StateDir(tmp_path).create()
    assert mode(tmp_path) == 0o700


def test_files_are_for_their_user_alone(state: StateDir) -> None:
    state.password()
    state.announce({"GAIA_REDIS_URL": "redis://:secret@127.0.0.1:1/0"})
    with state.locked():
        assert {mode(each) for each in state.path.iterdir()} == {0o600}


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(click.ClickException, match="choose another --state-dir"):
        StateDir(tmp_path / "file").create()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(click.ClickException, match="belongs to user 65534"):
        StateDir(tmp_path).create()


def test_the_password_is_random_and_kept(state: StateDir, tmp_path: Path) -> None:
    other = StateDir(tmp_path / "other")
    other.create()
    assert len(state.password()) == 64
    assert state.password() == state.password()
    assert state.password() != other.password()


def test_a_password_file_that_others_could_read_is_closed(state: StateDir) -> None:
    state.password()
    (state.path / "redis-password").chmod(0o644)
    state.password()
    assert mode(state.path / "redis-password") == 0o600


@pytest.mark.parametrize("text", ["", "short", "g" * 64, "a" * 63 + "\n" + "b"])
def test_a_spoilt_password_file_is_named(state: StateDir, text: str) -> None:
    state.write("redis-password", text)
    with pytest.raises(click.ClickException, match="redis-password holds no password"):
        state.password()


def test_a_link_in_place_of_a_file_is_not_followed(state: StateDir, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (state.path / "env").symlink_to(victim)
    state.announce(VARIABLES)
    assert victim.read_text() == "mine"


def test_one_cluster_at_a_time(state: StateDir) -> None:
    with state.locked(), pytest.raises(click.ClickException, match=f"process {os.getpid()}"), state.locked():
        pass


def test_the_lock_is_free_again_after_its_holder(state: StateDir) -> None:
    for _ in range(2):
        with state.locked():
            assert state.held()
        assert not state.held()


def test_an_address_counts_only_while_a_cluster_holds_the_directory(state: StateDir) -> None:
    with state.locked():
        assert state.announced() == {}
        state.announce(VARIABLES)
        assert state.announced() == VARIABLES
    assert state.announced() == {}
    state.announce(VARIABLES)
    assert state.announced() == {}


def test_an_address_left_by_a_killed_cluster_is_forgotten(state: StateDir) -> None:
    state.announce(VARIABLES)
    with state.locked():
        assert state.announced() == {}


def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert StateDir(tmp_path / "nothing").announced() == {}


def test_a_child_does_not_inherit_the_lock(state: StateDir) -> None:
    with state.locked():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not state.held()
    finally:
        child.communicate(b"\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: needs root, to give a file away")
def test_somebody_elses_directory_leads_nowhere(state: StateDir) -> None:
    state.create()
    with state.locked():
        state.announce(VARIABLES)
        os.chown(state.path / "env", 65534, -1)
        with pytest.raises(click.ClickException, match="belongs to user 65534"):
            state.announced()


def test_only_what_leads_to_a_cluster_is_told(state: StateDir) -> None:
    state.create()
    with state.locked():
        state.announce(VARIABLES | {"PATH; touch /tmp/x": "1"})
        assert state.announced() == VARIABLES

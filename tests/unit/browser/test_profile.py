import os
import tempfile
from pathlib import Path

import pytest

from tasks.browser.profile import PREFIX, Profile, sweep


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def aged(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


def test_a_profile_is_for_its_owner_alone(parent: Path) -> None:
    profile = Profile(None)
    assert profile.path.parent == parent
    assert profile.path.stat().st_mode & 0o777 == 0o700
    profile.remove()
    profile.remove()
    assert not list(parent.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_a_profile_can_belong_to_another_user() -> None:
    profile = Profile((65534, 65534))
    assert (profile.path.stat().st_uid, profile.path.stat().st_gid) == (65534, 65534)
    profile.remove()


def test_what_a_dead_worker_left_is_removed(parent: Path) -> None:
    left = parent / f"{PREFIX}left"
    (left / "Default" / "Cache").mkdir(parents=True)
    aged(left)
    profile = Profile(None)
    assert not left.exists()
    profile.remove()


def test_the_profile_of_a_live_worker_stays(parent: Path) -> None:
    profile = Profile(None)
    aged(profile.path)
    sweep(parent)
    assert profile.path.exists()
    profile.remove()


def test_a_young_directory_and_what_has_another_name_stay(parent: Path) -> None:
    young = parent / f"{PREFIX}young"
    young.mkdir()
    other = parent / "gaia-other"
    other.mkdir()
    aged(other)
    sweep(parent)
    assert young.exists()
    assert other.exists()


def test_a_symbolic_link_and_a_file_are_not_followed(parent: Path) -> None:
    precious = parent / "precious"
    precious.mkdir()
    aged(precious)
    link = parent / f"{PREFIX}link"
    link.symlink_to(precious)
    os.utime(link, (0, 0), follow_symlinks=False)
    file = parent / f"{PREFIX}file"
    file.write_text("x")
    aged(file)
    sweep(parent)
    assert precious.exists()
    assert file.exists()

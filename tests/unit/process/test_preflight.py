"""What the settings of the process queue ask for has to be possible when a worker starts."""

import os
from pathlib import Path
from typing import Literal

import pytest

from config.programs import Process
from gaia.errors import InvalidSetting
from tasks.process import preflight
from tasks.process.launcher import groups


def test_an_executable_that_is_no_program_is_refused_by_its_entry(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    for path in (tmp_path / "none", tmp_path / "text", tmp_path):
        with pytest.raises(InvalidSetting) as caught:
            preflight.require(Process(executables=("/bin/true", str(path))))
        told = f"GAIA_PROCESS__EXECUTABLES names {str(path)!r}, which is no program on this machine"
        assert str(caught.value) == told


def test_a_glob_may_match_nothing_yet_and_a_program_passes(tmp_path: Path) -> None:
    preflight.require(Process(executables=("/bin/true", f"{tmp_path}/none/*")))


@pytest.mark.parametrize("mode", ["cgroup1", "cgroup2"])
def test_a_mode_that_is_demanded_is_refused_where_it_cannot_be_had(mode: Literal["cgroup1", "cgroup2"]) -> None:
    """Where it can be had, nothing of the trial is left."""
    site = groups.find("gaia-preflight-test", mode, None)
    if site is None:
        with pytest.raises(InvalidSetting, match=f"GAIA_PROCESS__ENFORCEMENT is {mode}, which this machine does not"):
            preflight.require(Process(enforcement=mode))
    else:
        site.remove()
        preflight.require(Process(enforcement=mode))
    # Not by a glob: groups of others come and go meanwhile, and it fails at one that went.
    assert not any(groups.name_of(os.getpid(), 0) in below for _, below, _ in os.walk("/sys/fs/cgroup"))


def test_a_delegated_group_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="GAIA_PROCESS__ENFORCEMENT"):
        preflight.require(Process(enforcement="cgroup2", cgroup=tmp_path / "none"))


@pytest.mark.parametrize("mode", ["auto", "sampled"])
def test_what_demands_no_group_is_not_tried(mode: Literal["auto", "sampled"]) -> None:
    preflight.require(Process(enforcement=mode))

"""Control groups, on directories that look like the kernel's.

Version 2 with all its controllers could not be run on the machine these tests were written on: its files are written
here, their effect is the kernel's. tests/unit/process/test_torture.py runs it wherever it can be had.
"""

import errno
import os
from pathlib import Path

import pytest

from tasks.process.launcher import groups
from tasks.process.launcher.groups import Group, Site

V2 = {
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.current": "4096",
    "memory.peak": "8192",
    "memory.events": "low 0\noom 1\noom_kill 2",
    "cpu.max": "max 100000",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1",
    "pids.max": "max",
    "cgroup.procs": "0\n41\n42",
}
V1 = {
    "memory": {
        "memory.limit_in_bytes": "",
        "memory.usage_in_bytes": "4096",
        "memory.max_usage_in_bytes": "8192",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
    },
    "cpu": {"cpu.cfs_quota_us": "-1"},
    "cpuacct": {"cpuacct.usage": "1500000000"},
    "pids": {"pids.max": "max", "cgroup.procs": "0\n41\n42"},
}


def filled(at: Path, files: dict[str, str]) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (at / name).write_text(text)
    return at


@pytest.fixture
def second(tmp_path: Path) -> tuple[Group, Path]:
    at = filled(tmp_path / "g", V2)
    return Group("cgroup2", dict.fromkeys(("memory", "cpu", "pids"), at)), at


@pytest.fixture
def first(tmp_path: Path) -> tuple[Group, Path]:
    return Group("cgroup1", {name: filled(tmp_path / name / "g", files) for name, files in V1.items()}), tmp_path


def test_limits_of_version_2(second: tuple[Group, Path]) -> None:
    group, at = second
    group.limit(memory_bytes=1 << 20, cpu_share=0.5, processes=10)
    found = {name: (at / name).read_text() for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max")}
    assert found["memory.max"].startswith("1048576")
    assert found["memory.swap.max"].startswith("0")
    assert found["cpu.max"].startswith("50000 100000")
    assert found["pids.max"].startswith("11")


def test_limits_of_version_1(first: tuple[Group, Path]) -> None:
    group, at = first
    group.limit(memory_bytes=1 << 20, cpu_share=0.5, processes=10)
    assert (at / "memory/g/memory.limit_in_bytes").read_text() == "1048576"
    assert (at / "cpu/g/cpu.cfs_quota_us").read_text() == "50000"
    assert (at / "pids/g/pids.max").read_text().startswith("11")


def test_usage_is_the_same_in_both_versions(first: tuple[Group, Path], second: tuple[Group, Path]) -> None:
    assert first[0].usage() == second[0].usage() == groups.Usage(4096, 8192, 1.5, 2)


def test_forks_are_forbidden_and_then_limited_anew(second: tuple[Group, Path]) -> None:
    group, at = second
    for _ in range(2):
        group.limit(memory_bytes=1, cpu_share=None, processes=None)
        group.forbid_forks()
        assert (at / "pids.max").read_text().startswith("0")
    group.limit(memory_bytes=1, cpu_share=None, processes=None)
    assert (at / "pids.max").read_text().startswith("max")


def test_members_of_other_namespaces_are_left_out(second: tuple[Group, Path]) -> None:
    assert second[0].members() == [41, 42]


def test_only_version_1_forgets_its_peak(first: tuple[Group, Path], second: tuple[Group, Path]) -> None:
    assert first[0].reset()
    assert (first[1] / "memory/g/memory.max_usage_in_bytes").read_text().startswith("0")
    assert not second[0].reset()


def test_a_site_of_version_2_hands_its_controllers_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    (tmp_path / "gaia-1-2").mkdir()
    (tmp_path / "gaia-1-2" / "cgroup.subtree_control").write_text("")
    Site("cgroup2", dict.fromkeys(("memory", "cpu", "pids"), tmp_path), "gaia-1-2")
    assert (tmp_path / "cgroup.subtree_control").read_text().split() == ["+cpu", "+pids"]
    assert (tmp_path / "gaia-1-2/cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_a_directory_that_is_no_control_group_is_no_site_and_stays_as_it_was(tmp_path: Path) -> None:
    assert groups.find("gaia-1-2", "cgroup2", str(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_hierarchies_are_found_by_the_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts, own = tmp_path / "mounts", tmp_path / "own"
    for name in ("memory", "cpu,cpuacct", "pids"):
        (tmp_path / "fs" / name / "svc").mkdir(parents=True)
    (tmp_path / "fs/unified/svc/worker").mkdir(parents=True)
    lines = [
        f"30 29 0:26 / {tmp_path}/fs/{name} rw shared:9 - cgroup cgroup rw,{name}" for name in V1 if name != "cpuacct"
    ]
    lines[1] = f"30 29 0:26 / {tmp_path}/fs/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
    lines.append(f"31 29 0:27 / {tmp_path}/fs/unified rw - cgroup2 cgroup2 rw")
    mounts.write_text("\n".join(lines))
    own.write_text("4:memory:/svc\n3:cpu,cpuacct:/svc\n2:pids:/\n0::/svc/worker\n")
    monkeypatch.setattr(groups, "MOUNTS", mounts)
    monkeypatch.setattr(groups, "OWN", own)
    found = groups._bases_1()
    assert found is not None
    assert {name: str(path.relative_to(tmp_path / "fs")) for name, path in found.items()} == {
        "memory": "memory/svc", "cpu": "cpu,cpuacct/svc", "cpuacct": "cpu,cpuacct/svc", "pids": "pids",
    }  # fmt: skip
    second = groups._bases_2(None)
    assert second is not None
    assert second["memory"] == tmp_path / "fs/unified/svc"


def test_the_sites_of_those_who_live_are_left_alone(tmp_path: Path) -> None:
    own = groups.name_of(os.getpid(), 7)
    for name in (own, f"gaia-{os.getpid()}-1-7", "gaia-other-name-x"):
        (tmp_path / name).mkdir()
    groups.sweep(str(tmp_path))
    assert {each.name for each in tmp_path.iterdir()} == {own, "gaia-other-name-x"}
    groups.sweep(str(tmp_path), also_of=os.getpid())
    assert {each.name for each in tmp_path.iterdir()} == {"gaia-other-name-x"}


def test_a_group_that_another_launcher_removes_meanwhile_fails_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel answers ENODEV to who has the file of a group open that is gone."""
    gone = tmp_path / f"gaia-{os.getpid()}-1-7" / "1"
    gone.mkdir(parents=True)
    (gone / "cgroup.procs").write_text("1")

    def refuse(*_: object) -> bytes:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(os, "read", refuse)
    monkeypatch.setattr(groups, "_REMOVAL_S", 0.0)
    assert groups.sweep(str(tmp_path)) == 0

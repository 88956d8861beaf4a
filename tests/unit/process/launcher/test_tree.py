import os
import subprocess
from pathlib import Path

import pytest

from tasks.process.launcher import tree
from tests.support.waiting import until


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "1000"])
    try:
        found = until(lambda: tree.stat(child.pid))
        assert (found.pid, found.parent) == (child.pid, os.getpid())
        assert found.memory_bytes >= 0
    finally:
        child.kill()
        child.wait()
    assert tree.stat(child.pid) is None


@pytest.mark.parametrize("told", [True, False])
def test_grandchildren_are_found_with_and_without_the_kernels_lists(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not told:
        monkeypatch.setattr(tree, "_children", lambda _: None)
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 1000 & sleep 1000"])
    try:
        until(lambda: len(tree.descendants(child.pid)) == 2)
        assert set(tree.descendants(child.pid)) < set(tree.descendants(os.getpid()))
        assert len(tree.sample(child.pid).members) == 2
    finally:
        for pid in tree.descendants(child.pid):
            os.kill(pid, 9)
        child.wait()


def test_a_process_that_is_not_there_has_no_descendants() -> None:
    assert tree.descendants(2**22 + 1) == []

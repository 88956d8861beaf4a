import os
from pathlib import Path

import pytest

from gaia.errors import ExecutableDenied
from tasks.process.executables import Executables
from tasks.roots.roots import Roots


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    found = Path(os.path.realpath(tmp_path)) / "tools"
    (found / "inner").mkdir(parents=True)
    for name in ("one", "two", "inner/three"):
        (found / name).touch(mode=0o755)
    return found


def admits(path: object, *allowed: object) -> bool:
    try:
        Executables([str(each) for each in allowed], roots=Roots({})).admit(str(path))
    except ExecutableDenied:
        return False
    return True


def test_nothing_is_allowed_by_default() -> None:
    assert not admits("/bin/sh")


def test_a_plain_entry_allows_that_file_alone(tools: Path) -> None:
    assert admits(tools / "one", tools / "one")
    assert not admits(tools / "two", tools / "one")
    assert not admits(tools / "one", tools)
    assert not admits(tools / "on", tools / "one")
    assert not admits(tools / "one2", tools / "one")


def test_names_are_compared_resolved(tools: Path) -> None:
    assert admits(f"{tools}/inner/../one", tools / "one")
    assert admits(f"{tools}//./one", tools / "one")
    assert not admits(f"{tools}/one/../two", tools / "one")
    assert not admits(f"{tools}/inner/../../tools/two", tools / "inner" / "*")


def test_a_link_is_judged_by_what_it_leads_to(tools: Path, tmp_path: Path) -> None:
    (tools / "good").symlink_to("one")
    (tools / "evil").symlink_to("/bin/sh")
    assert admits(tools / "good", tools / "one")
    assert not admits(tools / "evil", tools / "evil*")
    assert not admits(tools / "evil", tools / "*")
    assert not admits(tools / "good", tools / "good*")


def test_an_entry_that_is_a_link_allows_what_it_leads_to(tools: Path) -> None:
    (tools / "good").symlink_to("one")
    assert admits(tools / "good", tools / "good")
    assert admits(tools / "one", tools / "good")
    (tools / "good").unlink()
    (tools / "good").symlink_to("two")
    assert not admits(tools / "one", tools / "good")


def test_a_glob_allows_what_fits_it(tools: Path) -> None:
    assert admits(tools / "one", tools / "o*")
    assert admits(tools / "one", tools / "[no]ne")
    assert admits(tools / "inner" / "three", tools / "*")
    assert admits(tools / "inner" / "three", tools.parent / "*" / "inner" / "thre?")
    assert admits(tools / "one", "/*")
    assert admits(tools / "one", "*")
    assert not admits(tools / "two", tools / "o*")
    assert not admits(f"{tools}x", tools / "*")


def test_the_directory_of_a_glob_may_be_a_link(tools: Path) -> None:
    (tools.parent / "link").symlink_to("tools")
    assert admits(tools / "one", tools.parent / "link" / "*")


def test_the_resolved_path_is_what_runs(tools: Path) -> None:
    (tools / "good").symlink_to("one")
    assert Executables([str(tools / "one")], roots=Roots({})).admit(str(tools / "good")) == str(tools / "one")


def test_what_lies_beneath_a_files_root_is_denied(tools: Path) -> None:
    roots = Roots({"data": tools / "inner"})
    executables = Executables([f"{tools}/*"], roots=roots)
    executables.admit(f"{tools}/one")
    (tools / "link").symlink_to("inner/three")
    for name in ("inner/three", "link"):
        with pytest.raises(ExecutableDenied, match="files root") as caught:
            executables.admit(f"{tools}/{name}")
        assert caught.value.path == f"{tools}/{name}"
    roots.close()


def test_a_file_that_is_not_there_is_denied_unless_it_is_listed(tools: Path) -> None:
    assert not admits("/no/such", tools / "*")
    assert admits(tools / "no" / "such", tools / "*")

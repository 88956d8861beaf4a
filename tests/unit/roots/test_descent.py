"""Trees that are deeper than a path can tell, and than a process may hold descriptors."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.roots import descent
from tasks.roots.descent import Descent
from tasks.roots.usage import Used, count
from tasks.scope import Scope

DEEP = 1500


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[int]:
    """Give a directory with a chain of directories beneath it, each with a file of one byte."""
    fd = os.open(tmp_path, os.O_RDONLY)
    above = os.dup(fd)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=above)
        inner = os.open("d", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = inner
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=above))
    os.close(above)
    yield fd
    with Descent(fd) as way:
        while True:
            try:
                way.down("d")
            except FileNotFoundError:
                break
        while way.depth:
            os.unlink("f", dir_fd=way.fd)
            name = way.up()
            os.rmdir(name, dir_fd=way.fd)
    os.close(fd)


def open_now() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_way_leads_down_and_up_with_few_descriptors(deep: int) -> None:
    before, most = open_now(), 0
    with Descent(deep) as way:
        for level in range(DEEP):
            way.down("d")
            if level % 100 == 0:
                most = max(most, open_now())
        with pytest.raises(FileNotFoundError):
            way.down("none")
        assert way.depth == DEEP
        for level in range(DEEP - 10):
            assert way.up() == "d"
            if level % 100 == 0:
                most = max(most, open_now())
        assert os.stat("f", dir_fd=way.fd).st_size == 0
    assert open_now() == before
    assert most <= before + descent.HELD + 1


def test_a_deep_tree_is_counted(deep: int) -> None:
    assert count(deep, Scope.lasting(60)) == Used(0, DEEP)


def test_a_wide_directory_is_counted_with_few_descriptors(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "f").write_bytes(b"1")
    fd = os.open(tmp_path, os.O_RDONLY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now() + 200, hard))
    try:
        assert count(fd, Scope.lasting(60)) == Used(600, 600)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(fd)


def test_no_link_is_gone_into(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    fd = os.open(tmp_path, os.O_RDONLY)
    with Descent(fd) as way, pytest.raises(NotADirectoryError):
        way.down("link")
    os.close(fd)


def test_a_way_that_leads_elsewhere_by_now_is_not_gone_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "HELD", 2)
    (tmp_path / "a" / "b" / "c" / "d").mkdir(parents=True)
    fd, before = os.open(tmp_path, os.O_RDONLY), open_now()
    with Descent(fd) as way:
        for name in ("a", "b", "c", "d"):
            way.down(name)
        (tmp_path / "a").rename(tmp_path / "moved")
        (tmp_path / "a" / "b" / "c").mkdir(parents=True)
        way.up()
        with pytest.raises(OSError, match="Stale"):
            way.up()
    assert open_now() == before
    os.close(fd)

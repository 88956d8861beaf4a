import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaia.errors import Cancelled
from tasks.files import replacement


@pytest.fixture(params=["unnamed", "named"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A directory on a file system with, and as on one without, files that have no name."""
    if request.param == "named":
        real = os.open

        def refuse(path: str, flags: int, *rest: int, dir_fd: int | None = None) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(path, flags, *rest, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", refuse)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_the_content_takes_the_place_of_the_old(directory: int, tmp_path: Path) -> None:
    for body in (b"", b"one", bytes(3 << 20)):
        replacement.replace(directory, "f", body, durable=True, check=lambda: None)
        assert (tmp_path / "f").read_bytes() == body
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_a_stop_between_two_chunks_leaves_the_old_content_alone(directory: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    asked = []

    def check() -> None:
        asked.append(len(list(tmp_path.iterdir())))
        if len(asked) == 3:
            raise Cancelled("1")

    with pytest.raises(Cancelled):
        replacement.replace(directory, "f", bytes(8 << 20), durable=True, check=check)
    assert len(asked) == 3
    assert [each.name for each in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_directory_in_the_way_is_left_alone(directory: int, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(IsADirectoryError):
        replacement.replace(directory, "f", b"body", durable=False, check=lambda: None)
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_a_file_without_a_name_is_not_in_the_directory_while_it_is_written(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    seen: list[list[Path]] = []
    replacement.replace(fd, "f", b"body", durable=False, check=lambda: seen.append(list(tmp_path.iterdir())))
    os.close(fd)
    assert seen == [[]]

"""What other calls and other programs do to a file while a call is under way."""

import errno
import os
from typing import Any

import pytest

from gaia.contracts import files
from gaia.errors import FileBusy, FileFailed, PreconditionFailed
from tasks.files import moving
from tasks.files.service import FilesService
from tasks.scope import Scope
from tests.unit.files.conftest import Door


def test_an_append_that_fails_takes_no_file_away_that_came_meanwhile(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(fd: int) -> None:
        (door.root / "other").write_bytes(b"whole")
        (door.root / "other").rename(door.root / "f")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    door(files.Stat("data:"))
    door.roots.annex("data:")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(FileFailed):
        door(files.Append("data:f", b"x"))
    assert (door.root / "f").read_bytes() == b"whole"


def test_a_move_between_roots_leaves_a_source_that_changed_meanwhile(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door(files.Write("data:f", b"old"))
    real = moving.pour

    def pour(*given: Any) -> None:
        real(*given)
        (door.root / "new").write_bytes(b"new")
        (door.root / "new").rename(door.root / "f")

    monkeypatch.setattr(moving, "pour", pour)
    with pytest.raises(PreconditionFailed):
        door(files.Move("data:f", "full:f"))
    assert (door.root / "f").read_bytes() == b"new"
    assert door(files.Read("full:f")).body == b"old"


CHANGES = [
    files.Write("data:f", b"x"), files.Append("data:f", b"x"), files.Delete("data:f"), files.Copy("data:g", "data:f"),
    files.Move("data:g", "data:f"), files.Batch.of(files.Write("data:f", b"1"), files.Write("data:h", b"2")),
]  # fmt: skip


@pytest.mark.parametrize("call", CHANGES, ids=lambda each: each.OPERATION)
def test_every_change_of_a_file_waits_for_one_on_a_condition(
    door: Door, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    for name in ("f", "g"):
        door(files.Write(f"data:{name}", b"old"))
    monkeypatch.setattr("tasks.roots.locks.WAIT_S", 0.05)
    fd = os.open(door.root, os.O_RDONLY)
    with door.roots.annex("data:").locks.holding(fd, "f", "data:f", door.scope):
        if isinstance(call, files.Batch):
            assert door(call).items[0].outcome().error.args[0] == "data:f"
        else:
            with pytest.raises(FileBusy):
                door(call)
        assert (door.root / "f").read_bytes() == b"old"
    os.close(fd)
    door(call)


@pytest.mark.parametrize("first", [None, 2000])
@pytest.mark.parametrize("meanwhile", [files.Write("full:f", bytes(4000)), files.Write("full:f", b""), None])
def test_a_long_write_within_a_quota_keeps_no_other_waiting(
    door: Door, monkeypatch: pytest.MonkeyPatch, first: int | None, meanwhile: Any
) -> None:
    monkeypatch.setattr("tasks.roots.locks.WAIT_S", 0.05)
    (door.root / "f").write_bytes(bytes(1000))
    if first is not None:
        door(files.Write("full:f", bytes(first)))

    def pace(size: int, scope: Scope) -> int:
        # While the stream is under way, what it will replace is replaced by another call, or deleted.
        door(meanwhile or files.Delete("full:f", missing_ok=True))
        return size

    service = FilesService(roots=door.roots, pace=pace)
    service.stream(files.Stream(path="data:f", target="full:f"), door.scope)
    state = door(files.Stats()).roots[1]
    assert (state.used_bytes, state.used_files) == (1000, 1)

"""Writing, moving, looking: what each does, and that nothing else changes."""

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from gaia.contracts import files
from gaia.errors import (
    ArchiveRefused,
    FileFailed,
    FileMissing,
    InvalidCall,
    PathDenied,
    PreconditionFailed,
    QuotaExceeded,
)
from tasks.files import listing, tags
from tests.unit.files.conftest import Door

TARGETED = [files.Copy, files.Move]


def test_a_write_on_a_condition_changes_nothing_unless_it_holds(door: Door) -> None:
    first = door(files.Write("data:f", b"one", if_absent=True))
    with pytest.raises(PreconditionFailed):
        door(files.Write("data:f", b"two", if_absent=True))
    with pytest.raises(PreconditionFailed) as caught:
        door(files.Write("data:f", b"two", if_etag="0" * 64))
    assert caught.value.args == ("data:f", "0" * 64, first.etag)
    door(files.Write("data:f", b"two", if_etag=first.etag))
    with pytest.raises(PreconditionFailed, match="no file"):
        door(files.Write("data:g", b"two", if_etag=first.etag))
    assert door(files.Read("data:f")).body == b"two"
    assert door.names() == ["f", "sub"]


def test_of_many_writers_on_one_condition_one_wins(door: Door) -> None:
    tag = door(files.Write("data:f", b"0")).etag
    outcomes: list[bool] = []

    def write(number: int) -> None:
        try:
            door(files.Write("data:f", b"n%d" % number, if_etag=tag, durable=False))
            outcomes.append(True)
        except PreconditionFailed:
            outcomes.append(False)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sorted(outcomes) == [False] * 7 + [True]


def test_appends_of_many_threads_come_one_after_the_other(door: Door) -> None:
    lines = [b"%02d" % number * 2000 + b"\n" for number in range(16)]
    threads = [threading.Thread(target=door, args=(files.Append("data:log", line, durable=False),)) for line in lines]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sorted((door.root / "log").read_bytes().splitlines(keepends=True)) == lines


def test_an_append_that_is_repeated_changes_nothing(door: Door) -> None:
    call = files.Append("data:log", b"line\n", if_size_bytes=0)
    assert door(call) == files.Appended("data:log", 0, 5)
    with pytest.raises(PreconditionFailed, match="expected 0 bytes, found 5 bytes"):
        door(call)
    with pytest.raises(PreconditionFailed):
        door(files.Append("data:new", b"x", if_size_bytes=3))
    assert door.names() == ["log", "sub"]


def test_nothing_is_appended_through_a_link_or_to_a_fifo(door: Door) -> None:
    (door.root / "out").symlink_to("../outside/secret")
    os.mkfifo(door.root / "fifo")
    for name in ("out", "fifo"):
        with pytest.raises(PathDenied):
            door(files.Append(f"data:{name}", b"x"))


def test_a_range_and_the_end_are_read(door: Door) -> None:
    door(files.Write("data:f", b"".join(b"line %d\n" % number for number in range(100_000))))
    size = (door.root / "f").stat().st_size
    assert door(files.ReadRange("data:f", 5, 6)).body == b"0\nline"
    assert door(files.ReadRange("data:f", size - 2, 100)).body == b"9\n"
    assert door(files.ReadRange("data:f", size + 10, 100)).body == b""
    assert door(files.Tail("data:f", lines=2)).body == b"line 99998\nline 99999\n"
    assert door(files.Tail("data:f", lines=50_000)).body.startswith(b"line 50000\n")
    assert len(door(files.Tail("data:f", lines=100_000, max_bytes=1000)).body) == 1000
    assert door(files.Tail("data:f", lines=0)) == files.Chunk("data:f", b"", size, size, size)


def test_a_tail_without_a_last_line_break_counts_the_last_line(door: Door) -> None:
    door(files.Write("data:f", b"one\ntwo\nthree"))
    assert door(files.Tail("data:f", lines=2)).body == b"two\nthree"
    assert door(files.Tail("data:f", lines=9)).body == b"one\ntwo\nthree"


def test_a_follower_gets_what_is_added_and_learns_of_a_rotation(door: Door) -> None:
    door(files.Write("data:log", b"old\n"))
    at = door(files.Tail("data:log")).next_bytes
    adder = threading.Timer(0.05, lambda: door(files.Append("data:log", b"new\n")))
    adder.start()
    found = door(files.Tail("data:log", from_bytes=at, wait_s=30))
    adder.join()
    assert (found.body, found.offset_bytes, found.next_bytes) == (b"new\n", 4, 8)
    assert door(files.Tail("data:log", from_bytes=8)).body == b""
    door(files.Write("data:log", b"r\n"))
    found = door(files.Tail("data:log", from_bytes=8))
    assert (found.body, found.rotated) == (b"r\n", True)


@pytest.mark.parametrize("algorithm", ["sha256", "blake2b", "crc32c"])
def test_a_checksum_is_that_of_the_content(door: Door, algorithm: Any) -> None:
    body = os.urandom(3_000_000)
    written = door(files.Write("data:f", body))
    found = door(files.Checksum("data:f", algorithm))
    whole = tags.ALGORITHMS[algorithm]()
    whole.update(body)
    assert (found.hexdigest, found.size_bytes) == (whole.hexdigest(), len(body))
    assert (found.hexdigest == written.etag) == (algorithm == "sha256")


def test_crc32c_has_the_check_value_of_the_catalogue(door: Door) -> None:
    # RFC 3720 appendix B.4: of "123456789".
    door(files.Write("data:f", b"123456789"))
    assert door(files.Checksum("data:f", "crc32c")).hexdigest == "e3069283"


@pytest.mark.parametrize("kind", TARGETED)
def test_a_copy_or_move_puts_the_content_at_the_target(door: Door, kind: Any) -> None:
    door(files.Write("data:a", b"body"))
    door(kind("data:a", "data:new/deep/b"))
    assert (door.root / "new/deep/b").read_bytes() == b"body"
    assert (door.root / "a").exists() == (kind is files.Copy)
    door(files.Write("data:a", b"other"))
    with pytest.raises(PreconditionFailed) as caught:
        door(kind("data:a", "data:new/deep/b", if_absent=True))
    assert caught.value.path == "data:new/deep/b"
    door(kind("data:a", "data:new/deep/b"))
    assert (door.root / "new/deep/b").read_bytes() == b"other"


@pytest.mark.parametrize("kind", TARGETED)
def test_a_target_that_is_a_link_is_replaced(door: Door, kind: Any) -> None:
    door(files.Write("data:a", b"body"))
    (door.root / "out").symlink_to("../outside/secret")
    door(kind("data:a", "data:out"))
    assert not (door.root / "out").is_symlink()


@pytest.mark.parametrize("kind", TARGETED)
def test_a_target_outside_is_denied(door: Door, kind: Any) -> None:
    door(files.Write("data:a", b"body"))
    (door.root / "out").symlink_to("../outside")
    for target in ("data:out/x", "data:out/secret", "data:../outside/x", "data:.gaia/x", "none:x"):
        with pytest.raises(PathDenied) as caught:
            door(kind("data:a", target))
        assert caught.value.path == target
    assert (door.root / "a").read_bytes() == b"body"


def test_a_directory_is_moved_as_a_whole_and_not_into_itself(door: Door) -> None:
    door(files.Write("data:d/e/f", b"body"))
    with pytest.raises(PathDenied, match="beneath"):
        door(files.Move("data:d", "data:d/e/d"))
    door(files.Move("data:d", "data:m"))
    assert door.names("m") == ["e"]
    with pytest.raises(FileFailed) as caught:
        door(files.Move("data:sub", "data:m"))
    assert caught.value.path == "data:m"


def test_what_is_missing_is_not_moved_and_no_directory_is_made_for_it(door: Door) -> None:
    for call in (files.Move("data:no", "data:new/x"), files.Copy("data:no", "data:new/x")):
        with pytest.raises(FileMissing) as caught:
            door(call)
        assert caught.value.path == "data:no"
    assert door.names() == ["sub"]


def test_a_file_moves_between_roots(door: Door) -> None:
    door(files.Write("data:f", b"body"))
    door(files.Move("data:f", "full:f"))
    assert door(files.Read("full:f")).body == b"body"
    with pytest.raises(FileMissing):
        door(files.Read("data:f"))


def test_what_is_deleted_is_counted_and_links_are_not_followed(door: Door) -> None:
    door(files.Write("data:d/e/f", b"12345"))
    door(files.Write("data:d/g", b"1"))
    (door.root / "d" / "out").symlink_to("../../outside")
    with pytest.raises(FileFailed, match="not empty"):
        door(files.Delete("data:d"))
    assert door(files.Delete("data:d", recursive=True)) == files.Deleted("data:d", 5, 6)
    with pytest.raises(FileMissing):
        door(files.Delete("data:d"))
    assert door(files.Delete("data:d", missing_ok=True)).entries == 0
    with pytest.raises(PathDenied, match="root itself"):
        door(files.Delete("data:", recursive=True))
    door(files.Delete("data:sub"))
    assert door.names() == []


def test_a_directory_is_made_once(door: Door) -> None:
    assert door(files.MakeDir("data:a/b")).created
    assert not door(files.MakeDir("data:a/b")).created
    with pytest.raises(FileFailed, match="exists"):
        door(files.MakeDir("data:a/b", exist_ok=False))
    door(files.Write("data:f", b""))
    with pytest.raises(FileFailed, match="exists"):
        door(files.MakeDir("data:f"))


def test_what_is_there_is_described_and_links_are_themselves(door: Door) -> None:
    door(files.Write("data:f", b"body"))
    (door.root / "link").symlink_to("/etc/passwd")
    os.mkfifo(door.root / "fifo")
    kinds = {name: door(files.Stat(f"data:{name}")).kind for name in ("f", "link", "fifo", "sub", "")}
    assert kinds == {"f": "file", "link": "link", "fifo": "other", "sub": "directory", "": "directory"}
    found = door(files.Stat("data:f"))
    assert (found.size_bytes, found.mode) == (4, stat.S_IMODE((door.root / "f").stat().st_mode))


def test_a_listing_comes_in_pages_by_name(door: Door) -> None:
    for number in range(25):
        door(files.Write(f"data:sub/{number:02}.txt", b"", durable=False))
    door(files.Write("data:sub/x.bin", b"", durable=False))
    found, cursor = [], None
    for size in (10, 10, 5):
        page = door(files.List("data:sub", "*.txt", limit=10, cursor=cursor))
        assert len(page.entries) == size
        found += [each.path for each in page.entries]
        cursor = page.cursor
    assert cursor is None
    assert found == [f"data:sub/{number:02}.txt" for number in range(25)]
    assert [each.path for each in door(files.List("data:")).entries] == ["data:sub"]


def test_a_walk_in_pages_is_the_walk_as_a_whole(door: Door) -> None:
    for name in ("a/1", "a/2", "a/b/1", "a.x", "a/b.c", "z", "b/c/d/e", "sub/q"):
        door(files.Write(f"data:{name}", b"", durable=False))
    (door.root / "loop").symlink_to(".")
    for kind in ("file", "directory", "any"):
        whole = door(files.Walk("data:", kind=kind)).paths
        assert len(set(whole)) == len(whole)
        for limit in (1, 2, 3, 7):
            paged: list[str] = []
            cursor = None
            while True:
                page = door(files.Walk("data:", kind=kind, limit=limit, cursor=cursor))
                paged += page.paths
                cursor = page.cursor
                if cursor is None:
                    break
            assert tuple(paged) == whole, (kind, limit)
    assert door(files.Walk("data:", "**/b*")).paths == ("data:a/b.c",)
    assert door(files.Walk("data:", "*", max_depth=1)).paths == ("data:a.x", "data:loop", "data:z")
    assert door(files.Walk("data:b", "**/e")).paths == ("data:b/c/d/e",)
    with pytest.raises(InvalidCall, match="cursor"):
        door(files.Walk("data:", cursor="../x"))


def test_a_quota_holds_over_threads_and_what_fails_counts_for_nothing(door: Door) -> None:
    refused: list[str] = []

    def write(number: int) -> None:
        try:
            door(files.Write(f"full:{number}", bytes(3000), durable=False))
        except QuotaExceeded as error:
            refused.append(error.quota)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(door(files.List("full:")).entries) == 3
    assert len(refused) == 5
    state = door(files.Stats()).roots[1]
    assert (state.used_bytes, state.used_files) == (9000, 3)


def test_a_replaced_moved_and_deleted_file_frees_its_part_of_the_quota(door: Door) -> None:
    def used() -> tuple[int | None, int | None]:
        state = door(files.Stats()).roots[1]
        return state.used_bytes, state.used_files

    door(files.Write("full:a", bytes(9000)))
    door(files.Write("full:a", bytes(9500)))
    assert used() == (9500, 1)
    door(files.Write("full:a", bytes(100)))
    door(files.Append("full:a", bytes(50)))
    door(files.Copy("full:a", "full:b"))
    assert used() == (300, 2)
    door(files.Move("full:a", "full:b"))
    assert used() == (150, 1)
    with pytest.raises(QuotaExceeded):
        door(files.Append("full:b", bytes(10_000)))
    assert used() == (150, 1)
    for number in range(4):
        door(files.Write(f"full:d/{number}", b""))
    with pytest.raises(QuotaExceeded, match="5 files"):
        door(files.Write("full:d/5", b""))
    door(files.Delete("full:d", recursive=True))
    assert used() == (150, 1)
    assert not (door.root.parent / "full" / "d").exists()


def test_what_lay_there_before_counts_towards_the_quota(door: Door) -> None:
    (door.root.parent / "full" / "old").write_bytes(bytes(9000))
    with pytest.raises(QuotaExceeded):
        door(files.Write("full:new", bytes(2000)))
    (door.root.parent / "full" / "old").unlink()
    door.service._accounts.recount()
    door(files.Write("full:new", bytes(2000)))


def test_a_batch_gives_an_outcome_for_each_step_in_order(door: Door) -> None:
    steps = (files.Write("data:a", b"1"), files.Read("data:no"), files.Stat("data:a"), files.Delete("data:a"))
    found = door(files.Batch.of(*steps))
    outcomes = found.outcomes()
    assert [each.ok for each in outcomes] == [True, False, True, True]
    assert isinstance(outcomes[1].error, FileMissing)
    assert outcomes[2].unwrap().size_bytes == 1
    assert (found.failed, found.stopped) == (1, False)
    found = door(files.Batch.of(*steps, stop_on_error=True))
    assert [each is None for each in found.outcomes()] == [False, False, True, True]
    assert found.stopped
    with pytest.raises(InvalidCall):
        files.Batch.of(files.Stats())
    with pytest.raises(InvalidCall):
        files.Batch((files.Step(),))
    with pytest.raises(InvalidCall):
        files.Batch.of(*[files.Stat("data:")] * 1001)


def test_statistics_count_every_operation(door: Door) -> None:
    door(files.Write("data:f", b"12345"))
    door(files.Read("data:f"))
    with pytest.raises(FileMissing):
        door(files.Read("data:g"))
    found = door(files.Stats())
    assert (found.operations, found.successes, found.errors) == (3, 2, 1)
    assert (found.read_bytes, found.written_bytes) == (5, 5)
    assert (found.active, found.peak, found.limit) == (0, 1, 500)
    assert [each.operation for each in found.by_operation] == ["read", "write"]


def test_health_tells_of_a_root_that_vanished(door: Door, tmp_path: Path) -> None:
    assert door(files.Health()).status == "healthy"
    door(files.Stat("full:"))
    for each in sorted((tmp_path / "full").rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    (tmp_path / "full").rmdir()
    found = door(files.Health())
    assert found.status == "degraded"
    assert found.reasons == ("root 'full': the directory was deleted",)
    with pytest.raises((FileMissing, FileFailed)) as caught:
        door(files.Write("full:f", b"x"))
    assert caught.value.path.startswith("full:")


def test_a_walk_of_a_wide_directory_reads_it_a_part_at_a_time(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        door(files.Write(f"data:d/{number:03}", b"", durable=False))
        door(files.MakeDir(f"data:d/{number:03}x/inner", durable=False))
    whole = door(files.Walk("data:", kind="any")).paths
    assert len(whole) == 182
    monkeypatch.setattr(listing, "WINDOW", 7)
    monkeypatch.setattr(listing, "CHECK_EVERY", 5)
    assert door(files.Walk("data:", kind="any")).paths == whole
    paged: list[str] = []
    cursor = None
    while True:
        page = door(files.Walk("data:", kind="any", limit=10, cursor=cursor))
        paged += page.paths
        cursor = page.cursor
        if cursor is None:
            break
    assert tuple(paged) == whole
    monkeypatch.setattr(listing, "PAGE_CHARACTERS", 50)
    assert 0 < len(door(files.Walk("data:", kind="any")).paths) < 20


@pytest.mark.parametrize("name", [".gaia/x", "sub/.gaia/identity", "sub/.GAIA", ".Gaia", f"sub/.{'0' * 32}.gaia"])
def test_what_is_gaias_own_has_no_path_at_any_depth(door: Door, name: str) -> None:
    for call in (files.Write(f"data:{name}", b""), files.Read(f"data:{name}"), files.Move("data:sub", f"data:{name}")):
        with pytest.raises(PathDenied, match="keeps"):
            door(call)
    door(files.Write("data:sub/x.gaia", b""))  # a name like another


def test_a_name_that_is_no_utf8_is_not_shown_and_not_packed_and_can_be_deleted(door: Door) -> None:
    door(files.Write("data:d/good", b""))
    for name in (b"a\xff", b"z\xff"):
        (door.root / "d" / os.fsdecode(name)).touch()
    (door.root / "d" / os.fsdecode(b"dir\xff")).mkdir()
    assert [each.path for each in door(files.List("data:d")).entries] == ["data:d/good"]
    assert door(files.List("data:d", limit=1)).cursor is None
    assert door(files.Walk("data:d", kind="any")).paths == ("data:d/good",)
    for kind in ("tar", "zip"):
        with pytest.raises(ArchiveRefused, match="UTF-8"):
            door(files.Pack("data:d", "data:x", kind))  # type: ignore[arg-type]
    assert door(files.Delete("data:d", recursive=True)).entries == 5

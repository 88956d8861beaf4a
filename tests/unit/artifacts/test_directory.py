"""Bodies in a shared directory: names, modes, links, quota, sweep."""

import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from subprocess import PIPE, Popen, run
from threading import Barrier

import pytest

from gaia.codec import Artifact
from gaia.errors import ArtifactMissing, ArtifactsFull, ArtifactsUnavailable, BodyTooLarge, GaiaError
from gaia.store import directory, tree
from gaia.store.artifacts import Artifacts
from gaia.store.directory import directory_of
from gaia.store.tree import DRAFT_S, SKEW_S
from tests.support.cluster import ROOT
from tests.support.seccomp import NOBODY
from tests.support.waiting import until
from tests.unit.artifacts.conftest import TTL_S, Shelf

MIB = 1024 * 1024


def sweep(shelf: Shelf, *, most: int = 1000, enough: Callable[[], bool] = lambda: False) -> directory.Swept:
    return shelf.store().sweep(most=most, enough=enough)


def read(shelf: Shelf, artifact: Artifact) -> bytes:
    with shelf.store().open(artifact) as file:
        return file.read()


# --- the directory's URL


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/srv/a", "/srv/a"),
        ("file:///srv/a", "/srv/a"),
        ("file://localhost/srv/a", "/srv/a"),
        ("file:///srv/with%20blank", "/srv/with blank"),
        ("/srv/with%20sign?", "/srv/with%20sign?"),
    ],
)
def test_a_url_of_a_file_or_a_path_names_a_directory(url: str, path: str) -> None:
    assert directory_of(url) == Path(path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a",
        "./a",
        "~/a",
        "file:a",
        "file://",
        "file://host/a",
        "file:///a?b=c",
        "file:///a#b",
        "file:///a%00b",
        "/a\0b",
        "s3://key:secret@bucket/a",
        "http://host/a",
        "redis://host/0",
        "file://[/a",
    ],
)
def test_any_other_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        directory_of(url)
    assert str(caught.value) == "must be file:///directory or an absolute path"


# --- files


def test_bodies_are_private_files_two_levels_down(shelf: Shelf) -> None:
    found = shelf.put(b"abc")
    path = shelf.file(found)
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode & 0o777 == 0o600
    for each in (path.parent, path.parent.parent, shelf.path / "incoming"):
        assert each.stat().st_mode & 0o777 == 0o700
    assert shelf.drafts() == []


def test_the_time_of_a_file_is_when_it_expires(shelf: Shelf) -> None:
    assert shelf.file(shelf.put(ttl_s=50)).stat().st_mtime == shelf.moment + 50


def test_a_directory_that_is_not_there_is_not_made(shelf: Shelf) -> None:
    found = shelf.put()
    shelf.path.rename(shelf.path.with_name("unmounted"))
    for use in (shelf.put, lambda: read(shelf, found), lambda: sweep(shelf), shelf.store().used_bytes):
        with pytest.raises(ArtifactsUnavailable, match="No such file or directory"):
            use()
    assert not shelf.path.exists()


def test_a_file_in_place_of_the_directory_is_unavailable(shelf: Shelf) -> None:
    shelf.path.rmdir()
    shelf.path.write_bytes(b"")
    with pytest.raises(ArtifactsUnavailable, match="Not a directory"):
        shelf.put()


def test_a_body_that_shrinks_while_it_is_read_is_refused(shelf: Shelf) -> None:
    found = shelf.put(bytes(4 * MIB))
    with shelf.store().open(found) as file:
        file.read(10)
        os.truncate(shelf.file(found), 2 * MIB)
        with pytest.raises(ArtifactMissing, match="does not have its size"):
            file.read()


def test_a_body_that_grows_while_it_is_read_comes_back_as_it_was(shelf: Shelf) -> None:
    found = shelf.put(b"ab")
    with shelf.store().open(found) as file, shelf.file(found).open("ab") as more:
        more.write(b"c")
        more.flush()
        assert file.read() == b"ab"


def test_memory_holds_a_few_chunks_of_a_body_only(shelf: Shelf) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(MIB)

    tracemalloc.start()
    try:
        found = shelf.store().write(chunks(), size_bytes=None, media_type="a/b")
        with shelf.store().open(found) as file:
            assert sum(map(len, iter(lambda: file.read(MIB), b""))) == 64 * MIB
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_a_body_taken_as_a_whole_lies_in_memory_once(shelf: Shelf) -> None:
    found = shelf.put(bytes(32 * MIB))
    whole = Artifacts(shelf.store(), shelf.store(), memory_bytes=32 * MIB)
    tracemalloc.start()
    try:
        assert len(whole.get(found)) == 32 * MIB
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


def test_files_are_closed_however_a_body_is_left(shelf: Shelf) -> None:
    found = shelf.put(bytes(MIB))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        shelf.put()
        shelf.store().open(found).close()
        shelf.store().refer(found)
        sweep(shelf)
        for use in (shelf.store().open, shelf.store().refer):
            for bad in (replace(found, size_bytes=1), replace(found, id="0" * 32)):
                with pytest.raises(ArtifactMissing):
                    use(bad)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- links


def test_a_link_planted_in_place_of_a_body_is_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"x")
    os.utime(target, (shelf.moment + 500, shelf.moment + 500))
    found = shelf.put(b"x")
    shelf.file(found).unlink()
    shelf.file(found).symlink_to(target)
    for use in (shelf.store().open, shelf.store().refer):
        with pytest.raises(ArtifactMissing, match="is not stored"):
            use(found)
    assert target.stat().st_mtime == shelf.moment + 500


@pytest.mark.parametrize("level", [0, 1])
def test_a_link_planted_in_place_of_a_level_is_not_followed(shelf: Shelf, tmp_path: Path, level: int) -> None:
    found = shelf.put(b"x")
    step = shelf.file(found).parents[level]
    step.rename(tmp_path / "elsewhere")
    step.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactMissing, match="is not stored"):
        shelf.store().open(found)
    shelf.moment += 1_000_000
    assert sweep(shelf).files == 0
    assert shelf.file(found).exists()


def test_a_link_planted_in_place_of_incoming_is_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (shelf.path / "incoming").symlink_to(elsewhere)
    with pytest.raises(ArtifactsUnavailable):
        shelf.put()
    assert list(elsewhere.iterdir()) == []


def test_a_pipe_or_a_directory_in_place_of_a_body_is_none(shelf: Shelf) -> None:
    found = shelf.put(b"x")
    path = shelf.file(found)
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)
        os.utime(path, (shelf.moment + 500, shelf.moment + 500))
        with pytest.raises(ArtifactMissing, match="is not stored"):
            shelf.store().open(found)
        if path.is_dir():
            path.rmdir()
            path.touch()


# --- quota


def test_the_quota_is_held(shelf: Shelf) -> None:
    shelf.put(bytes(600), quota_bytes=1000)
    with pytest.raises(ArtifactsFull) as caught:
        shelf.put(bytes(500), quota_bytes=1000)
    assert caught.value.args == (500, 1000)
    shelf.put(bytes(400), quota_bytes=1000)
    assert shelf.store().used_bytes() == 1000
    assert shelf.drafts() == []


def test_a_body_over_the_whole_quota_is_too_large(shelf: Shelf) -> None:
    with pytest.raises(BodyTooLarge):
        shelf.put(bytes(1001), quota_bytes=1000)
    with pytest.raises(BodyTooLarge):
        shelf.store(quota_bytes=1000).write([bytes(600), bytes(600)], size_bytes=None, media_type="a/b")
    assert shelf.store().used_bytes() == 0


def test_a_body_of_unknown_size_may_use_the_last_byte_of_the_quota(shelf: Shelf) -> None:
    store = shelf.store(quota_bytes=1000)
    store.write([bytes(500), bytes(100)], size_bytes=None, media_type="a/b")
    store.write([bytes(100)] * 4, size_bytes=None, media_type="a/b")
    assert store.used_bytes() == 1000
    with pytest.raises(ArtifactsFull):
        store.write([b"x"], size_bytes=None, media_type="a/b")


def test_a_source_that_grew_past_its_size_is_still_held_to_the_quota(shelf: Shelf) -> None:
    store = shelf.store(quota_bytes=1000)
    store.write([bytes(10), bytes(90)], size_bytes=10, media_type="a/b")
    with pytest.raises(BodyTooLarge):
        store.write([bytes(10), bytes(991)], size_bytes=10, media_type="a/b")
    assert store.used_bytes() == 100


def test_room_claimed_and_not_used_is_given_back(shelf: Shelf) -> None:
    store = shelf.store(quota_bytes=1000)
    found = store.write([bytes(10)], size_bytes=900, media_type="a/b")
    assert found.size_bytes == 10
    assert read(shelf, found) == bytes(10)
    assert store.used_bytes() == 10


def test_writers_at_once_never_pass_the_quota(shelf: Shelf) -> None:
    store = shelf.store(quota_bytes=10_000)

    def write(number: int) -> int:
        try:
            return store.write(
                [bytes(600), bytes(400)], size_bytes=1000 if number % 2 else None, media_type="a/b"
            ).size_bytes
        except ArtifactsFull:
            return 0

    with ThreadPoolExecutor(8) as threads:
        stored = sum(threads.map(write, range(60)))
    assert 0 < stored == store.used_bytes() <= 10_000
    assert shelf.drafts() == []


@pytest.mark.parametrize("size_bytes", [1000, None], ids=["known", "stream"])
def test_writers_at_once_are_all_let_through_if_all_fit(shelf: Shelf, size_bytes: int | None) -> None:
    store = shelf.store(quota_bytes=8000 if size_bytes else 16_000)
    at_once = Barrier(8)

    def write(_: int) -> Artifact:
        at_once.wait(10)
        return store.write([bytes(600), bytes(400)], size_bytes=size_bytes, media_type="a/b")

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(write, range(8)))) == 8
    assert store.used_bytes() == 8000


def test_writers_of_several_processes_fill_the_quota_to_its_last_byte(shelf: Shelf) -> None:
    code = (
        "import sys; from pathlib import Path; from gaia.store.directory import DirectoryArtifacts\n"
        "store = DirectoryArtifacts(Path(sys.argv[1]), quota_bytes=30_000); print(flush=True); input()\n"
        "for _ in range(10): store.write([bytes(1000)], size_bytes=1000, media_type='a/b')"
    )
    writers = [
        Popen([sys.executable, "-c", code, str(shelf.path)], stdin=PIPE, stdout=PIPE, cwd=ROOT) for _ in range(3)
    ]
    for each in writers:
        assert each.stdout
        each.stdout.readline()
    for each in writers:
        each.communicate(b"\n", timeout=20)
    assert [each.returncode for each in writers] == [0, 0, 0]
    assert shelf.store().used_bytes() == 30_000


def test_a_draft_that_becomes_a_body_while_it_is_counted_counts_once(shelf: Shelf) -> None:
    found = shelf.put(bytes(700))
    os.link(shelf.file(found), shelf.path / "incoming" / f"{found.id}.{'b' * 16}")
    assert shelf.store().used_bytes() == 700


def test_a_turn_that_nobody_gives_back_is_waited_for_no_longer_than_said(shelf: Shelf) -> None:
    root = os.open(shelf.path, os.O_RDONLY)
    entered = []
    with tree.turn(root):
        assert (shelf.path / "lock").stat().st_mode & 0o777 == 0o600
        with tree.turn(root, wait_s=0.05):
            entered.append(1)
    with tree.turn(root):
        entered.append(2)
    os.close(root)
    assert entered == [1, 2]


def test_whatever_lies_in_place_of_the_lock_hinders_nobody(shelf: Shelf, tmp_path: Path) -> None:
    lock, target = shelf.path / "lock", tmp_path / "target"
    for make in (lock.mkdir, lambda: os.mkfifo(lock), lambda: lock.symlink_to(target)):
        make()
        shelf.put()
        lock.rmdir() if lock.is_dir() else lock.unlink()
    assert not target.exists()


def test_a_sweep_makes_room(shelf: Shelf) -> None:
    shelf.put(bytes(1000), quota_bytes=1000, ttl_s=10)
    shelf.moment += 10 + SKEW_S
    with pytest.raises(ArtifactsFull):
        shelf.put(b"x", quota_bytes=1000)
    sweep(shelf)
    shelf.put(b"x", quota_bytes=1000)


# --- sweep


def test_a_sweep_removes_what_expired_a_minute_ago(shelf: Shelf) -> None:
    shelf.put(b"abc", ttl_s=10)
    kept = shelf.put(b"de", ttl_s=100)
    shelf.moment += 10 + SKEW_S - 1
    assert sweep(shelf) == directory.Swept(0, 0, more=False)
    shelf.moment += 1
    assert sweep(shelf) == directory.Swept(1, 3, more=False)
    assert shelf.files() == [shelf.file(kept)]


def test_a_sweep_removes_the_oldest_first_and_stops_at_its_bound(shelf: Shelf) -> None:
    ages = [30, 10, 50, 20, 40]
    found = {age: shelf.put(ttl_s=age) for age in ages}
    shelf.moment += 1000
    assert sweep(shelf, most=2) == directory.Swept(2, 2, more=True)
    assert shelf.files() == sorted(shelf.file(found[age]) for age in (30, 40, 50))
    answers = iter([False, True])
    assert sweep(shelf, enough=lambda: next(answers)) == directory.Swept(1, 1, more=True)
    assert shelf.files() == sorted(shelf.file(found[age]) for age in (40, 50))


def test_a_sweep_leaves_what_is_none_of_ours(shelf: Shelf, tmp_path: Path) -> None:
    shelf.file(shelf.put()).unlink()
    shelf_path = next(shelf.path.glob("[0-9a-f]/[0-9a-f]"))
    target = tmp_path / "target"
    target.write_bytes(b"x")
    (shelf_path / "notes.txt").write_bytes(b"x")
    (shelf_path / ("a" * 32)).symlink_to(target)
    (shelf_path / ("b" * 32)).mkdir()
    (shelf.path / "incoming" / "notes.txt").write_bytes(b"x")
    (shelf.path / "incoming" / f"{'a' * 32}.{'b' * 16}").symlink_to(target)
    (shelf.path / ("c" * 32)).write_bytes(b"x")
    before = sorted(shelf.path.rglob("*"))
    shelf.moment += 10_000_000_000
    assert sweep(shelf) == directory.Swept(0, 0, more=False)
    assert sorted(shelf.path.rglob("*")) == before
    assert shelf.store().used_bytes() == 0
    assert target.exists()


def test_a_sweep_removes_what_a_dead_writer_left_an_hour_ago(shelf: Shelf) -> None:
    shelf.put()
    draft = shelf.path / "incoming" / f"{'a' * 32}.{'b' * 16}"
    draft.write_bytes(b"half")
    os.utime(draft, (shelf.moment, shelf.moment))
    assert shelf.store().used_bytes() == 5
    shelf.moment += DRAFT_S - 1
    sweep(shelf)
    assert shelf.drafts() == [draft]
    shelf.moment += 1
    sweep(shelf)
    assert shelf.drafts() == []


def test_what_a_killed_writer_left_counts_until_it_is_swept(shelf: Shelf) -> None:
    code = (
        "import sys; from pathlib import Path; from gaia.store.directory import DirectoryArtifacts\n"
        "lines = iter(lambda: sys.stdin.buffer.read1(1000), b'')\n"
        "DirectoryArtifacts(Path(sys.argv[1])).write(lines, size_bytes=5000, media_type='a/b')"
    )
    writer = Popen([sys.executable, "-c", code, str(shelf.path)], stdin=PIPE, cwd=ROOT)
    assert writer.stdin
    writer.stdin.write(b"half")
    writer.stdin.flush()
    until(lambda: shelf.store().used_bytes() == 5000)
    writer.kill()
    writer.communicate(timeout=20)
    (draft,) = shelf.drafts()
    shelf.moment = draft.stat().st_ctime + DRAFT_S - 1
    assert sweep(shelf).files == 0
    assert shelf.store().used_bytes() == 5000
    shelf.moment += 1
    assert sweep(shelf) == directory.Swept(1, 5000, more=False)
    assert shelf.store().used_bytes() == 0
    assert shelf.files() == []


def test_what_the_disk_does_not_take_is_unavailable_and_leaves_nothing(shelf: Shelf) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from gaia.errors import ArtifactsUnavailable\n"
        "from gaia.store.directory import DirectoryArtifacts\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "store = DirectoryArtifacts(Path(sys.argv[1]))\n"
        "try: store.write([bytes(600), bytes(600)], size_bytes=600, media_type='a/b')\n"
        "except ArtifactsUnavailable as failure: print(failure.reason)"
    )
    done = run([sys.executable, "-c", code, str(shelf.path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "File too large\n", done.stderr
    assert shelf.drafts() == []
    assert shelf.files() == []


def test_a_writer_that_died_right_before_the_rename_leaves_nothing_for_longer(shelf: Shelf) -> None:
    shelf.put()
    draft = shelf.path / "incoming" / f"{'a' * 32}.{'b' * 16}"
    draft.write_bytes(b"whole")
    shelf.moment = draft.stat().st_ctime + DRAFT_S
    os.utime(draft, (shelf.moment + 1e9, shelf.moment + 1e9))
    assert sweep(shelf).files == 1  # the body that has long expired
    shelf.moment = draft.stat().st_ctime + DRAFT_S
    sweep(shelf)
    assert shelf.drafts() == []


def test_a_body_whose_life_was_prolonged_is_not_swept(shelf: Shelf) -> None:
    found = shelf.put(ttl_s=10)
    shelf.store(ttl_s=TTL_S).refer(found)
    shelf.moment += 10 + SKEW_S
    assert sweep(shelf).files == 0
    assert read(shelf, found) == b"x"


def test_what_was_given_a_longer_life_during_a_sweep_is_not_removed(shelf: Shelf) -> None:
    found = shelf.put(ttl_s=10)
    shelf.moment += 10 + SKEW_S

    def prolong() -> bool:
        os.utime(shelf.file(found), (shelf.moment + 1, shelf.moment + 1))
        return False

    assert sweep(shelf, enough=prolong) == directory.Swept(0, 0, more=True)
    assert read(shelf, found) == b"x"


def test_what_cannot_be_removed_does_not_keep_the_rest(shelf: Shelf, tmp_path: Path) -> None:
    first, second = shelf.put(ttl_s=10), shelf.put(ttl_s=20)
    while shelf.file(second).parent == shelf.file(first).parent:
        second = shelf.put(ttl_s=20)
    shelf.moment += 1000

    def take_away() -> bool:
        step = shelf.file(first).parent
        if not step.is_file():
            step.rename(tmp_path / "elsewhere")
            step.touch()
        return False

    swept = sweep(shelf, enough=take_away)
    assert swept.failures == ("Not a directory",)
    assert swept.files == 1
    assert not shelf.file(second).exists()


def test_a_level_that_may_not_be_read_keeps_no_sweep_from_the_rest(shelf: Shelf) -> None:
    closed, found = shelf.put(ttl_s=10), shelf.put(ttl_s=10)
    while shelf.file(found).parent.parent == shelf.file(closed).parent.parent:
        found = shelf.put(ttl_s=10)
    shelf.file(closed).parent.parent.chmod(0)
    code = (
        "import os; from pathlib import Path; from gaia.store.directory import DirectoryArtifacts\n"
        f"if os.getuid() == 0: os.setgid({NOBODY}), os.setuid({NOBODY})  # nothing is closed to root\n"
        f"store = DirectoryArtifacts(Path('.'), now=lambda: {shelf.moment + 1000})\n"
        "print(*set(store.sweep(most=9, enough=lambda: False).failures))"
    )
    for each in (shelf.path, *shelf.path.rglob("*")) if os.getuid() == 0 else ():
        os.chown(each, NOBODY, NOBODY)
    done = run([sys.executable, "-c", code], cwd=shelf.path, capture_output=True, text=True, check=False)
    shelf.file(closed).parent.parent.chmod(0o700)
    assert done.stdout == "Permission denied\n", done.stderr
    assert shelf.file(closed).exists()
    assert not shelf.file(found).exists()


def test_a_body_swept_while_it_is_referred_to_is_missing(shelf: Shelf) -> None:
    found = shelf.put(ttl_s=10)
    calls = count()

    def now() -> float:
        if next(calls) == 1:
            shelf.file(found).unlink()
        return shelf.moment

    with pytest.raises(ArtifactMissing, match="is not stored"):
        directory.DirectoryArtifacts(shelf.path, ttl_s=TTL_S, now=now).refer(found)


def test_of_two_that_refer_at_once_the_longer_life_wins(shelf: Shelf) -> None:
    found = shelf.put(ttl_s=10)
    calls = count()

    def now() -> float:
        if next(calls) == 1:
            # After this one saw that ten seconds are left, and before it makes a hundred of them.
            shelf.store(ttl_s=TTL_S).refer(found)
        return shelf.moment

    directory.DirectoryArtifacts(shelf.path, ttl_s=100, now=now).refer(found)
    assert shelf.file(found).stat().st_mtime == shelf.moment + TTL_S


def test_a_file_system_that_cannot_sync_names_is_good_enough() -> None:
    # proc(5) answers fsync on a directory with EINVAL.
    fd = os.open("/proc", os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(fd)
    tree.sync_names(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fsync(fd)


def test_sweeps_at_once_disturb_neither_each_other_nor_writers(shelf: Shelf) -> None:
    for _ in range(100):
        shelf.put(ttl_s=10)
    shelf.moment += 1000

    def work(number: int) -> GaiaError | None:
        try:
            sweep(shelf) if number % 2 else shelf.put(ttl_s=TTL_S, quota_bytes=1000)
        except GaiaError as failure:
            return failure
        return None

    with ThreadPoolExecutor(8) as threads:
        assert not any(threads.map(work, range(60)))
    assert len(shelf.files()) == 30


# --- whether it can be used


def test_a_directory_says_what_keeps_it_from_taking_bodies(tmp_path: Path) -> None:
    at = tmp_path / "bodies"
    store = directory.DirectoryArtifacts(at)
    assert str(at) in store.trouble()
    at.write_text("")
    assert str(at) in store.trouble()
    at.unlink()
    at.mkdir()
    assert store.trouble() == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_directory_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "it cannot be written" in directory.DirectoryArtifacts(tmp_path).trouble()

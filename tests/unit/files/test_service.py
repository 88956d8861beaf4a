import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from gaia.contracts import files
from gaia.errors import (
    BodyTooLarge,
    Cancelled,
    DeadlineExceeded,
    FileFailed,
    FileMissing,
    InvalidCall,
    NotConfigured,
    PathDenied,
)
from tasks.files.service import FilesService
from tasks.roots import openat2, walk
from tasks.roots.roots import OpenBeneath, Roots
from tasks.scope import CancelToken, Clock, Scope

WRITER = """
import sys
from pathlib import Path
from gaia.contracts import files
from tasks.files.service import FilesService
from tasks.roots.roots import Roots
from tasks.scope import Scope
service = FilesService(roots=Roots({"data": Path(sys.argv[1])}))
scope = Scope.lasting(60)
while True:
    for letter in (b"x", b"y"):
        service.write(files.Write("data:f", letter * 300_000, durable=False), scope)
        print("wrote", flush=True)
"""
SWAPPER = """
import os, sys
link, spare, inside, outside = sys.argv[1:]
print("ready", flush=True)
while True:
    for target in (inside, outside):
        os.symlink(target, spare)
        os.rename(spare, link)
"""
FULL = """
import resource, sys
from pathlib import Path
from gaia.contracts import files
from gaia.errors import FileFailed
from tasks.files.service import FilesService
from tasks.roots.roots import Roots
from tasks.scope import Scope
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
service = FilesService(roots=Roots({"data": Path(sys.argv[1])}))
try:
    service.write(files.Write("data:f", bytes(3_000_000)), Scope.lasting(60))
except FileFailed as failure:
    print(failure)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "root"
    found.mkdir()
    return found


@pytest.fixture
def service(root: Path) -> Iterator[FilesService]:
    roots = Roots({"data": root})
    found = FilesService(roots=roots)
    yield found
    found.close()
    found.close()
    roots.close()


@pytest.fixture
def scope() -> Scope:
    return Scope.lasting(60)


def names(directory: Path) -> list[str]:
    """What a caller sees of a directory: the root holds what is Gaia's, too."""
    return sorted(each.name for each in directory.iterdir() if each.name != ".gaia")


def write(service: FilesService, path: str, body: bytes, *, durable: bool = True) -> files.Written:
    return service.write(files.Write(path=path, body=body, durable=durable), Scope.lasting(60))


def read(service: FilesService, path: str, **options: int) -> files.Content:
    return service.read(files.Read(path=path, **options), Scope.lasting(60))


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("body", [b"", b"\0\xff", b"text\r\n", os.urandom(3_000_001)])
def test_what_is_written_is_read_back(service: FilesService, body: bytes, durable: bool) -> None:
    written = write(service, "data:f", body, durable=durable)
    content = read(service, "data:f")
    assert content.body == body
    assert content.size_bytes == written.size_bytes == len(body)
    assert content.etag == written.etag
    assert content.path == written.path == "data:f"


def test_the_tag_changes_with_the_content_alone(service: FilesService, root: Path) -> None:
    tags = [write(service, "data:f", each).etag for each in (b"a", b"b", b"c", b"a")]
    assert len(set(tags)) == 3
    assert tags[0] == tags[3]
    os.utime(root / "f", (1, 1))
    assert read(service, "data:f").etag == tags[3]


def test_missing_directories_are_made(service: FilesService, root: Path) -> None:
    write(service, "data:x/y/z/f", b"deep")
    assert (root / "x" / "y" / "z" / "f").read_bytes() == b"deep"


def test_nothing_but_the_file_is_left_in_its_directory(service: FilesService, root: Path) -> None:
    write(service, "data:f", b"one")
    write(service, "data:f", b"two")
    assert names(root) == ["f"]


def test_a_new_file_is_not_writable_by_others(service: FilesService, root: Path) -> None:
    write(service, "data:f", b"body")
    assert stat.S_IMODE((root / "f").stat().st_mode) & 0o133 == 0


def test_a_reader_that_has_opened_the_file_sees_the_old_content(service: FilesService, root: Path) -> None:
    write(service, "data:f", b"old")
    with (root / "f").open("rb") as reader:
        write(service, "data:f", b"new")
        assert reader.read() == b"old"


def test_a_link_is_replaced_and_its_target_is_not_touched(service: FilesService, root: Path) -> None:
    outside = root.parent / "outside"
    outside.write_bytes(b"outside")
    (root / "near").write_bytes(b"near")
    for name, target in (("out", "../outside"), ("in", "near"), ("gone", "nowhere")):
        (root / name).symlink_to(target)
        write(service, f"data:{name}", b"body")
        assert not (root / name).is_symlink()
        assert (root / name).read_bytes() == b"body"
    assert outside.read_bytes() == b"outside"
    assert (root / "near").read_bytes() == b"near"
    assert not (root / "nowhere").exists()


def test_a_fifo_is_replaced_without_a_wait(service: FilesService, root: Path) -> None:
    os.mkfifo(root / "fifo")
    write(service, "data:fifo", b"body")
    assert (root / "fifo").read_bytes() == b"body"


@pytest.mark.parametrize("path", ["data:../f", "data:a/../f", "data:a//f", "data:f/", "data:", "data:.", "other:f"])
def test_a_path_that_names_no_file_beneath_a_root_is_denied(service: FilesService, root: Path, path: str) -> None:
    with pytest.raises(PathDenied):
        write(service, path, b"body")
    assert names(root) == []


@pytest.mark.parametrize("path", ["", "f", "data", ":f", "data:/f", "data:a\0b", "data:" + "x" * 5000])
def test_a_malformed_path_never_makes_a_call(path: str) -> None:
    for make in (lambda: files.Read(path=path), lambda: files.Write(path=path, body=b"")):
        with pytest.raises(InvalidCall):
            make()


def test_the_systems_refusals_name_the_callers_path(service: FilesService, root: Path) -> None:
    (root / "d").mkdir()
    (root / "f").touch()
    for path, reason in (("data:d", "Is a directory"), ("data:f/g", "Not a directory"), ("data:" + "x" * 256, "long")):
        with pytest.raises(FileFailed, match=reason) as caught:
            write(service, path, b"body")
        assert caught.value.path == path
        assert str(root) not in str(caught.value)
    assert names(root) == ["d", "f"]
    assert list((root / "d").iterdir()) == []


def test_reading_what_is_no_file_fails(service: FilesService, root: Path) -> None:
    (root / "d").mkdir()
    with pytest.raises(FileMissing):
        read(service, "data:no")
    with pytest.raises(FileFailed, match="Is a directory"):
        read(service, "data:d")


def test_a_file_over_the_bound_is_refused_and_one_at_it_is_not(service: FilesService, root: Path) -> None:
    (root / "f").write_bytes(b"12345")
    assert read(service, "data:f", max_bytes=5).body == b"12345"
    with pytest.raises(BodyTooLarge) as caught:
        read(service, "data:f", max_bytes=4)
    assert caught.value.args == ("data:f", 4)
    (root / "empty").touch()
    assert read(service, "data:empty", max_bytes=0).body == b""


def test_a_file_far_over_the_bound_is_refused_unread(service: FilesService, root: Path) -> None:
    with (root / "f").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BodyTooLarge):
        read(service, "data:f")


def test_a_file_that_tells_no_size_is_read_and_bounded() -> None:
    roots = Roots({"proc": Path("/proc")})
    service = FilesService(roots=roots)
    assert b"MemTotal" in read(service, "proc:meminfo").body
    with pytest.raises(BodyTooLarge):
        read(service, "proc:meminfo", max_bytes=10)
    roots.close()


def test_a_cancelled_call_writes_and_reads_nothing(service: FilesService, root: Path, scope: Scope) -> None:
    (root / "f").touch()
    scope.cancelled.set()
    with pytest.raises(Cancelled):
        service.write(files.Write("data:g", b"body"), scope)
    with pytest.raises(Cancelled):
        service.read(files.Read("data:f"), scope)
    assert names(root) == ["f"]


def test_a_deadline_that_passes_between_chunks_leaves_nothing(service: FilesService, root: Path) -> None:
    ticks = count()
    clock = Clock(monotonic=lambda: float(next(ticks)))
    with pytest.raises(DeadlineExceeded):
        service.write(files.Write("data:f", bytes(8 << 20)), Scope("1", "files.write", 4.5, CancelToken(), clock=clock))
    assert 4 < next(ticks) < 10
    assert names(root) == []
    (root / "f").write_bytes(bytes(8 << 20))
    ticks = count()
    with pytest.raises(DeadlineExceeded):
        service.read(files.Read("data:f"), Scope("1", "files.read", 4.5, CancelToken(), clock=clock))


def test_a_write_that_the_system_cuts_short_leaves_nothing(root: Path) -> None:
    (root / "f").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", FULL, str(root)], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().strip() == f"data:f: {os.strerror(errno.EFBIG)}"
    assert names(root) == ["f"]
    assert (root / "f").read_bytes() == b"old"


def test_without_roots_the_setting_is_named() -> None:
    service = FilesService(roots=Roots({}))
    with pytest.raises(NotConfigured, match="GAIA_FILES__ROOTS"):
        write(service, "data:f", b"body")


def test_many_threads_writing_one_file_leave_one_whole_content(service: FilesService, root: Path) -> None:
    bodies = [bytes([each]) * 200_000 for each in range(8)]
    threads = [threading.Thread(target=write, args=(service, "data:d/f", body)) for body in bodies]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert (root / "d" / "f").read_bytes() in bodies
    assert [each.name for each in (root / "d").iterdir()] == ["f"]


def test_a_writer_killed_at_any_instant_leaves_a_whole_content(service: FilesService, root: Path) -> None:
    bodies = (b"x" * 300_000, b"y" * 300_000)
    for writes in (1, 2, 3, 5, 8, 13):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(writes):
                assert writer.stdout.readline() == b"wrote\n"
                assert read(service, "data:f").body in bodies
            writer.kill()
        assert read(service, "data:f").body in bodies


@pytest.mark.parametrize("open_beneath", [openat2.open_beneath, walk.open_beneath], ids=["openat2", "walk"])
def test_no_write_through_a_swapped_link_leaves_the_root(root: Path, open_beneath: OpenBeneath) -> None:
    if open_beneath is openat2.open_beneath and not openat2.available():
        pytest.skip("this kernel has no openat2")
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "sub").mkdir()
    (root / "link").symlink_to("sub")
    roots = Roots({"data": root}, open_beneath=open_beneath)
    command = [sys.executable, "-c", SWAPPER, str(root / "link"), str(root / "spare"), "sub", "../outside"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"ready\n"
        try:
            wrote, denied = _race(FilesService(roots=roots))
        finally:
            swapper.kill()
    roots.close()
    assert wrote > 0
    assert denied > 0
    assert list(outside.iterdir()) == []


def _race(service: FilesService) -> tuple[int, int]:
    wrote = denied = tries = 0
    while tries < 2000 or not (wrote and denied):
        tries += 1
        assert tries < 1_000_000, "the race was never on"
        try:
            write(service, "data:link/new/f", b"body", durable=False)
            wrote += 1
        except PathDenied:
            denied += 1
        except FileFailed:
            pass  # EAGAIN: the swap won every try of the kernel
    return wrote, denied

"""One suite for both ways of opening beneath a directory."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import settings
from gaia.errors import FileFailed, FileMissing, InvalidSetting, NotConfigured, PathDenied
from tasks.roots import openat2, walk
from tasks.roots.roots import OpenBeneath, Roots

SWAPPER = """
import os, sys
link, spare, inside, outside = sys.argv[1:]
print("ready", flush=True)
while True:
    for target in (inside, outside):
        os.symlink(target, spare)
        os.rename(spare, link)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "root"
    (found / "sub" / "deep").mkdir(parents=True)
    (found / "a").write_bytes(b"inside")
    (found / "sub" / "b").write_bytes(b"beneath")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a").write_bytes(b"outside")
    return found


@pytest.fixture(params=[openat2.open_beneath, walk.open_beneath], ids=["openat2", "walk"])
def open_beneath(request: pytest.FixtureRequest) -> OpenBeneath:
    if request.param is openat2.open_beneath and not openat2.available():
        pytest.skip("this kernel has no openat2")
    found: OpenBeneath = request.param
    return found


@pytest.fixture
def roots(root: Path, open_beneath: OpenBeneath) -> Iterator[Roots]:
    before = len(names(Path("/proc/self/fd")))
    found = Roots({"data": root}, open_beneath=open_beneath)
    yield found
    found.close()
    assert len(names(Path("/proc/self/fd"))) == before


def names(place: int | Path) -> list[str]:
    return sorted(os.listdir(place))  # noqa: PTH208 - a descriptor has no Path


def content(roots: Roots, path: str) -> bytes:
    with roots.reading(path) as fd:
        return os.read(fd, 100)


def test_a_file_beneath_the_root_is_read(roots: Roots) -> None:
    assert content(roots, "data:a") == b"inside"
    assert content(roots, "data:sub/b") == b"beneath"


def test_a_name_may_hold_any_byte_but_slash_and_nul(roots: Roots, root: Path) -> None:
    for name in ("..a", "...", "a:b", "-", " ", "\n", "ä", os.fsdecode(b"\xff"), "x" * 255):
        (root / name).write_bytes(b"here")
        assert content(roots, f"data:{name}") == b"here"


@pytest.mark.parametrize(
    "path",
    [
        "data:..",
        "data:../outside/a",
        "data:sub/../a",
        "data:sub/..",
        "data:/etc/passwd",
        "data://a",
        "data:sub//b",
        "data:sub/",
        "data:./a",
        "data:.",
        "data:a\0",
        "data:\0",
        "data:\ud800",
        "data:.gaia",
        "data:.gaia/identity",
        "other:a",
        "Data:a",
        ":a",
        "a",
        "",
        "/etc/passwd",
    ],
)
def test_a_path_that_is_not_plainly_beneath_a_root_is_denied(roots: Roots, path: str) -> None:
    for attempt in (roots.reading, roots.directory, roots.parent):
        with pytest.raises(PathDenied) as caught, attempt(path):
            pass
        assert caught.value.path == path


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("out", "../outside/a"),
        ("far", "/etc/passwd"),
        ("sub/out", "../../outside/a"),
        ("back", "../root/a"),
        ("own", "{root}/a"),
        ("self", "/proc/self/cwd/a"),
    ],
)
def test_a_symlink_out_of_the_root_is_denied(roots: Roots, root: Path, link: str, target: str) -> None:
    (root / link).symlink_to(target.format(root=root))
    with pytest.raises(PathDenied) as caught:
        content(roots, f"data:{link}")
    assert str(root) not in str(caught.value)


def test_a_directory_symlink_out_of_the_root_is_denied(roots: Roots, root: Path) -> None:
    (root / "out").symlink_to("../outside")
    with pytest.raises(PathDenied):
        content(roots, "data:out/a")
    with pytest.raises(PathDenied), roots.directory("data:out"):
        pass
    with pytest.raises(PathDenied), roots.parent("data:out/new", make=True):
        pass
    with pytest.raises(PathDenied), roots.parent("data:out/new/new", make=True):
        pass
    assert names(root.parent / "outside") == ["a"]


def test_a_symlink_that_stays_beneath_is_followed(roots: Roots, root: Path) -> None:
    (root / "near").symlink_to("a")
    (root / "dir").symlink_to("sub/./deep//")
    (root / "sub" / "deep" / "up").symlink_to("../../a")
    (root / "dot").symlink_to(".")
    (root / "chain").symlink_to("dir/up")
    assert content(roots, "data:near") == b"inside"
    assert content(roots, "data:dir/up") == b"inside"
    assert content(roots, "data:chain") == b"inside"
    with roots.directory("data:dot") as fd:
        assert "a" in names(fd)


def test_a_chain_of_forty_links_is_followed_and_a_loop_is_not(roots: Roots, root: Path) -> None:
    (root / "link0").symlink_to("a")
    for index in range(39):
        (root / f"link{index + 1}").symlink_to(f"link{index}")
    (root / "round").symlink_to("round")
    assert content(roots, "data:link39") == b"inside"
    (root / "link40").symlink_to("link39")
    for path in ("data:link40", "data:round", "data:round/a"):
        with pytest.raises(FileFailed, match="symbolic links"):
            content(roots, path)


def test_what_does_not_exist_is_missing(roots: Roots, root: Path) -> None:
    (root / "dangling").symlink_to("nowhere")
    for path in ("data:no", "data:no/a", "data:sub/no", "data:dangling"):
        with pytest.raises(FileMissing) as caught:
            content(roots, path)
        assert caught.value.path == path


def test_a_file_is_no_directory_and_a_directory_no_file(roots: Roots) -> None:
    with pytest.raises(FileFailed, match="Is a directory"):
        content(roots, "data:sub")
    with pytest.raises(FileFailed, match="Is a directory"):
        content(roots, "data:")
    with pytest.raises(FileFailed, match="Not a directory"):
        content(roots, "data:a/b")
    with pytest.raises(FileFailed, match="Not a directory"), roots.directory("data:a"):
        pass
    with pytest.raises(FileFailed, match="Not a directory"), roots.parent("data:a/b/c", make=True):
        pass


def test_a_name_that_is_too_long_is_refused_by_the_system(roots: Roots) -> None:
    with pytest.raises(FileFailed, match="too long"):
        content(roots, "data:" + "x" * 256)


def test_only_regular_files_are_read(roots: Roots, root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(root, os.O_RDONLY)
        # A socket's address is at most 108 bytes long, tmp_path may be longer.
        listener.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
    for name in ("fifo", "socket"):
        with pytest.raises(PathDenied, match="no regular file"):
            content(roots, f"data:{name}")


def test_a_device_is_not_read(open_beneath: OpenBeneath) -> None:
    roots = Roots({"dev": Path("/dev")}, open_beneath=open_beneath)
    with pytest.raises(PathDenied, match="no regular file"):
        content(roots, "dev:null")
    roots.close()


def test_a_magic_link_is_not_followed(open_beneath: OpenBeneath, root: Path) -> None:
    roots = Roots({"proc": Path("/proc")}, open_beneath=open_beneath)
    fd = os.open(root / "a", os.O_RDONLY)
    with pytest.raises((PathDenied, FileFailed)):
        content(roots, f"proc:{os.getpid()}/fd/{fd}")
    os.close(fd)
    roots.close()


def test_the_parent_is_given_with_the_last_name(roots: Roots) -> None:
    with roots.parent("data:sub/new") as (fd, name):
        assert name == "new"
        assert names(fd) == ["b", "deep"]
    with pytest.raises(FileMissing), roots.parent("data:no/new"):
        pass


@pytest.mark.parametrize("durable", [True, False])
def test_missing_directories_are_made_on_request(roots: Roots, root: Path, durable: bool) -> None:
    with roots.parent("data:sub/x/y/z/new", make=True, durable=durable) as (fd, _):
        assert names(fd) == []
    assert (root / "sub" / "x" / "y" / "z").is_dir()
    assert not (root / "sub" / "x" / "y" / "z" / "new").exists()


def test_directories_are_made_beneath_a_followed_link(roots: Roots, root: Path) -> None:
    (root / "dir").symlink_to("sub/deep")
    with roots.parent("data:dir/x/new", make=True):
        assert (root / "sub" / "deep" / "x").is_dir()


def test_a_dangling_link_is_not_made_a_directory(roots: Roots, root: Path) -> None:
    (root / "dangling").symlink_to("../outside/made")
    (root / "near").symlink_to("made")
    for name in ("dangling", "near"):
        with pytest.raises((PathDenied, FileFailed)), roots.parent(f"data:{name}/new", make=True):
            pass
    assert not (root.parent / "outside" / "made").exists()


def test_a_path_has_255_components_at_most(roots: Roots) -> None:
    with roots.parent("data:" + "d/" * 254 + "new", make=True) as (fd, _):
        assert names(fd) == []
    with pytest.raises(PathDenied, match="255"), roots.parent("data:" + "d/" * 255 + "new", make=True):
        pass


def test_a_file_over_two_gibibytes_is_opened(roots: Roots, root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(3 << 30)
    assert content(roots, "data:large") == bytes(100)


def test_a_renamed_root_stays_the_directory_that_it_was(roots: Roots, root: Path) -> None:
    assert content(roots, "data:a") == b"inside"
    root.rename(root.with_name("moved"))
    root.symlink_to("outside")
    assert content(roots, "data:a") == b"inside"


def test_no_live_swap_of_a_symlink_leads_out(roots: Roots, root: Path) -> None:
    """Two thousand tries against another process that turns a directory link in and out, with both answers seen."""
    (root / "sub" / "a").write_bytes(b"inside")
    (root / "link").symlink_to("sub")
    command = [sys.executable, "-c", SWAPPER, str(root / "link"), str(root / "spare"), "sub", "../outside"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"ready\n"
        try:
            read, denied = _race(roots)
        finally:
            swapper.kill()
    assert read > 0
    assert denied > 0
    assert names(root.parent / "outside") == ["a"]


def _race(roots: Roots) -> tuple[int, int]:
    read = denied = tries = 0
    while tries < 2000 or not (read and denied):
        tries += 1
        assert tries < 1_000_000, "the race was never on"
        try:
            assert content(roots, "data:link/a") == b"inside"
            read += 1
            with roots.parent("data:link/new/x", make=True) as (fd, _):
                assert names(fd) == []
        except PathDenied:
            denied += 1
        except FileFailed:
            pass  # EAGAIN: the swap won every try of the kernel
    return read, denied


def test_a_root_without_a_directory_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    roots = Roots.from_settings(settings.Files(roots={"gone": tmp_path / "no", "file": tmp_path / "file"}))
    for path in ("gone:a", "file:a"):
        with pytest.raises(InvalidSetting, match="GAIA_FILES__ROOTS names no usable directory as root ") as caught:
            content(roots, path)
        assert str(tmp_path) not in str(caught.value)
    (tmp_path / "no").mkdir()
    with pytest.raises(FileMissing):
        content(roots, "gone:a")
    roots.close()


def test_without_any_root_the_setting_is_named() -> None:
    with pytest.raises(NotConfigured, match="GAIA_FILES__ROOTS"):
        content(Roots({}), "data:a")


def test_close_may_be_called_twice_and_before_any_use(root: Path) -> None:
    roots = Roots({"data": root})
    roots.close()
    assert content(roots, "data:a") == b"inside"
    roots.close()
    roots.close()


def test_roots_hold_what_lies_beneath_them(roots: Roots, root: Path) -> None:
    assert roots.holds(root / "sub" / "b")
    assert roots.holds(root / "no" / "such")
    assert not roots.holds(root.parent / "outside" / "a")
    assert not roots.holds(root)
    assert not Roots({}).holds(root / "a")
    assert not Roots({"gone": root / "no"}).holds(root / "a")

"""Archives: what is packed comes back, and what is hostile leaves nothing behind."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from gaia.contracts import files
from gaia.errors import ArchiveRefused, FileFailed, InvalidCall, QuotaExceeded
from tasks.files import packing
from tests.unit.files.conftest import Door

FORMATS = ["tar", "tar.gz", "tar.zst", "zip"]


def tree(door: Door) -> dict[str, bytes]:
    contents = {"a": b"one", "empty": b"", "d/e/ü": os.urandom(300_000), "x" * 200: b"long", "d/run": b"#!"}
    for name, body in contents.items():
        door(files.Write(f"data:t/{name}", body, durable=False))
    (door.root / "t/d/run").chmod(0o755)
    door(files.MakeDir("data:t/nothing"))
    return contents


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_packed_comes_back(door: Door, kind: Any) -> None:
    contents = tree(door)
    packed = door(files.Pack("data:t", f"data:out/x.{kind}", kind))
    assert packed.size_bytes == (door.root / "out" / f"x.{kind}").stat().st_size
    assert (packed.entries, packed.content_bytes) == (8, sum(map(len, contents.values())))
    unpacked = door(files.Unpack(f"data:out/x.{kind}", "data:back"))
    assert (unpacked.entries, unpacked.content_bytes) == (packed.entries, packed.content_bytes)
    found = {str(each.relative_to(door.root / "back")): each for each in (door.root / "back").rglob("*")}
    assert {name: each.read_bytes() for name, each in found.items() if each.is_file()} == contents
    assert found["nothing"].is_dir()
    assert os.access(found["d/run"], os.X_OK)
    assert not os.access(found["a"], os.X_OK)


@pytest.mark.parametrize("kind", FORMATS)
def test_other_programs_read_what_is_packed(door: Door, kind: Any, tmp_path: Path) -> None:
    door(files.Write("data:one", b"body"))
    door(files.Pack("data:one", "data:x", kind))
    raw = (door.root / "x").read_bytes()
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            assert archive.testzip() is None
            assert archive.read("one") == b"body"
        return
    plain = {"tar": lambda: raw, "tar.gz": lambda: gzip.decompress(raw)}.get(
        kind, lambda: zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    )()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        member = tar.extractfile("one")
        assert member is not None
        assert member.read() == b"body"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_link_is_not_packed_and_no_part_is_left(door: Door, kind: Any) -> None:
    tree(door)
    (door.root / "t/out").symlink_to("../../outside")
    with pytest.raises(ArchiveRefused) as caught:
        door(files.Pack("data:t", "data:x", kind))
    assert caught.value.member == "out"
    with pytest.raises(ArchiveRefused, match="entries"):
        door(files.Pack("data:t/d", "data:x", kind, max_entries=2))
    with pytest.raises(ArchiveRefused, match="bytes"):
        door(files.Pack("data:t/d", "data:x", kind, max_bytes=100_000))
    with pytest.raises(QuotaExceeded):
        door(files.Pack("data:t/d", "full:x", kind))
    assert door.names() == ["sub", "t"]


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for info, body in members:
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return target.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def zip_of(*members: tuple[str, bytes, int], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body, mode in members:
            each = zipfile.ZipInfo(name)
            each.external_attr = mode << 16
            each.compress_type = compression
            archive.writestr(each, body)
    return target.getvalue()


def long_header() -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)


GOOD = (info("good"), b"good")
HOSTILE_TARS = {
    "symlink": tar_of(GOOD, (info("l", tarfile.SYMTYPE, "../../outside"), b"")),
    "hard link": tar_of(GOOD, (info("l", tarfile.LNKTYPE, "good"), b"")),
    "device": tar_of(GOOD, (info("d", tarfile.CHRTYPE), b"")),
    "fifo": tar_of(GOOD, (info("p", tarfile.FIFOTYPE), b"")),
    "dots": tar_of(GOOD, (info("../x"), b"x")),
    "inner dots": tar_of(GOOD, (info("a/../../x"), b"x")),
    "absolute": tar_of(GOOD, (info("/var/escaped"), b"x")),
    "twice": tar_of(GOOD, GOOD),
    "name of ours": tar_of(GOOD, (info("a/.gaia/identity"), b"x")),
    "beneath a file": tar_of(GOOD, (info("good/x"), b"x")),
    "cut": tar_of(GOOD, (info("x"), bytes(50_000)))[:30_000],
    "long header": long_header(),
    "nonsense": os.urandom(5000),
    "empty": b"",
}
HOSTILE_ZIPS = {
    "lzma": zip_of(("good", b"good", 0o100644), compression=zipfile.ZIP_LZMA),
    "symlink": zip_of(("good", b"good", 0o100644), ("l", b"../outside", 0o120777)),
    "device": zip_of(("d", b"", 0o020644)),
    "dots": zip_of(("good", b"good", 0o100644), ("../x", b"x", 0o100644)),
    "absolute": zip_of(("/var/escaped", b"x", 0o100644)),
    "nonsense": os.urandom(5000),
    "empty": b"",
    "cut": zip_of(("good", os.urandom(50_000), 0o100644))[:20_000],
    "false directory": b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, 1 << 30, 0, 0),
    "bad sum": zip_of(("good", b"good" * 100, 0o100644)).replace(b"PK\x01\x02", b"PK\x01\x02", 1)[:40] + b"\xff" * 400,
}
CASES = [("tar", name, body) for name, body in HOSTILE_TARS.items()]
CASES += [("tar.gz", name, gzip.compress(body)) for name, body in HOSTILE_TARS.items() if name != "empty"]
CASES += [("zip", name, body) for name, body in HOSTILE_ZIPS.items()]
CASES += [("tar.gz", "no gzip", b"x" * 1000), ("tar.zst", "no zstd", b"x" * 1000)]
CASES += [("tar.gz", "cut gzip", gzip.compress(tar_of((info("x"), os.urandom(50_000))))[:20_000])]


@pytest.mark.parametrize(("kind", "name", "body"), CASES, ids=lambda each: each if isinstance(each, str) else "")
@pytest.mark.parametrize("durable", [True, False])
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    door: Door, kind: Any, name: str, body: bytes, durable: bool
) -> None:
    (door.root / "x").write_bytes(body)
    if name == "empty" and kind == "tar":
        pytest.skip("tarfile reads an empty file as an archive without members on some versions")
    with pytest.raises(ArchiveRefused) as caught:
        door(files.Unpack("data:x", "data:new/place", kind, durable=durable))
    assert caught.value.path == "data:x"
    assert door.names("new") == []
    assert not Path("/var/escaped").exists()  # where the absolute member would have gone


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst", "zip"])
def test_a_bomb_ends_at_the_bound_whatever_it_says_of_itself(door: Door, kind: Any) -> None:
    with (door.root / "zeros").open("wb") as zeros:
        zeros.truncate(30_000_000)
    door(files.Pack("data:zeros", "data:bomb", kind))
    if kind == "zip":
        raw = bytearray((door.root / "bomb").read_bytes())
        at = raw.rfind(b"PK\x01\x02")
        raw[at + 24 : at + 28] = (10).to_bytes(4, "little")  # the size that it says
        (door.root / "bomb").write_bytes(raw)
    with pytest.raises(ArchiveRefused):
        door(files.Unpack("data:bomb", "data:new", kind, max_bytes=1_000_000))
    for number in range(20):
        door(files.Write(f"data:many/{number}", b"", durable=False))
    door(files.Pack("data:many", "data:bomb", kind))
    with pytest.raises(ArchiveRefused, match="entries"):
        door(files.Unpack("data:bomb", "data:new", kind, max_entries=19))
    with pytest.raises(QuotaExceeded):
        door(files.Unpack("data:bomb", "full:new", kind))
    assert door.names() == ["bomb", "many", "sub", "zeros"]
    assert door(files.Stats()).roots[1].used_files == 0


def test_a_target_that_holds_something_is_left_alone(door: Door) -> None:
    (door.root / "x.tar").write_bytes(tar_of(GOOD))
    door(files.Write("data:sub/mine", b"mine"))
    for target in ("data:sub", "data:x.tar"):
        with pytest.raises(FileFailed) as caught:
            door(files.Unpack("data:x.tar", target))
        assert caught.value.path == target
    assert door.names("sub") == ["mine"]
    door(files.Delete("data:sub/mine"))
    door(files.Unpack("data:x.tar", "data:sub"))
    assert door.names("sub") == ["good"]


def test_a_format_that_the_name_does_not_tell_is_asked_for(door: Door) -> None:
    (door.root / "x").write_bytes(tar_of(GOOD))
    with pytest.raises(InvalidCall, match="format"):
        door(files.Unpack("data:x", "data:new"))


def test_directories_that_names_imply_are_entries_too(door: Door) -> None:
    members = [(info(f"{number}/" + "d/" * 50 + "f"), b"") for number in range(3)]
    (door.root / "x.tar").write_bytes(tar_of(*members))
    with pytest.raises(ArchiveRefused, match="entries"):
        door(files.Unpack("data:x.tar", "data:new", max_entries=155))
    assert door(files.Unpack("data:x.tar", "data:new", max_entries=156)).entries == 156
    (door.root / "x.tar").write_bytes(tar_of(*[(info("d", tarfile.DIRTYPE), b"")] * 20))
    with pytest.raises(ArchiveRefused, match="entries"):
        door(files.Unpack("data:x.tar", "data:again", max_entries=19))
    assert door(files.Unpack("data:x.tar", "data:again", max_entries=20)).entries == 1


def test_a_file_that_grows_while_it_is_packed_is_packed_as_it_was(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    (door.root / "f").write_bytes(bytes(1000))
    real = packing.Bounded.read

    def read(self: Any, size: int = -1) -> bytes:
        with (door.root / "f").open("ab") as file:
            file.write(bytes(1000))
        return real(self, size)

    monkeypatch.setattr(packing.Bounded, "read", read)
    for kind in FORMATS:
        packed = door(files.Pack("data:f", "data:x", kind))  # type: ignore[arg-type]
        unpacked = door(files.Unpack("data:x", f"data:{kind}", kind))  # type: ignore[arg-type]
        assert packed.content_bytes == unpacked.content_bytes

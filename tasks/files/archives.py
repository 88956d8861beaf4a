"""Reading archives one member at a time, without trusting what they say of themselves.

Every member is a file or a directory with a name that stays beneath; a link, a device, a sparse file, an absolute name,
`..`, an encrypted member or one that comes twice makes the whole archive refused.
"""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, NoReturn

import zstandard

from gaia.contracts import files
from gaia.errors import ArchiveRefused, InvalidCall
from tasks.roots.annex import is_ours
from tasks.roots.roots import DEPTH_LIMIT

FORMATS: Final = {".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar.zst": "tar.zst", ".zip": "zip"}
HEADER_BYTES: Final = 1 << 16
"""A tar's header of names and attributes may have so many; tarfile takes it into memory, and up to 1000 in a row."""

ENTRY_BYTES: Final = 4096
"""What a member may take beside its content, on the average."""

DIRECTORY_ENTRY_BYTES: Final = 512
"""The same in a zip's directory, which zipfile takes into memory."""

WINDOW_BYTES: Final = 64 * 1024 * 1024
"""The most memory that decompressing zstd may ask for."""

_HEADERS: Final = frozenset(
    (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
)
BROKEN: Final = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, EOFError, struct.error,
    ValueError, LookupError, NotImplementedError, RuntimeError,
)  # fmt: skip
"""What the libraries raise for an archive that is none; errors of the disk are others."""

_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""Of a zip. LZMA is not among them: the archive says how much memory it takes, up to 4 GiB (APPNOTE 5.8.8)."""

_END: Final = struct.Struct("<4s4H2LH")
_END_TAIL: Final = 65_535
"""The longest comment behind a zip's end record (APPNOTE 4.3.16)."""


@dataclass(frozen=True)
class Member:
    """A member: the components of its name, whether it is a directory or may be executed, and its content."""

    name: str
    parts: list[str]
    directory: bool
    executable: bool
    open: Callable[[], IO[bytes]]


def format_of(call: files.Unpack) -> str:
    """Give the format, by the name if the call does not say it.

    Raises:
        InvalidCall: if the name does not tell.
    """
    if call.format is not None:
        return call.format
    for suffix, found in FORMATS.items():
        if call.path.lower().endswith(suffix):
            return found
    raise InvalidCall(call.OPERATION, "format", "is needed: the name of the archive does not tell")


def members(fd: int, call: files.Unpack) -> Iterator[Member]:
    """Give the members of an archive, each to be read before the next is asked for.

    Raises:
        ArchiveRefused, and what is in `BROKEN`.
    """
    kind, file = format_of(call), io.FileIO(fd, closefd=False)
    if kind == "zip":
        _require_directory(fd, call)
        yield from _of_zip(file, call)
        return
    stream: Any = io.BufferedReader(file, 1 << 18)
    if kind == "tar.gz":
        stream = gzip.GzipFile(fileobj=stream, mode="rb")
    elif kind == "tar.zst":
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
        stream = decompressor.stream_reader(stream, read_across_frames=True)
    yield from _of_tar(_Counted(stream, call), call)


class _Counted:
    """What a tar is read from, after decompression: headers alone may not be endless, either."""

    def __init__(self, stream: Any, call: files.Unpack) -> None:
        self._stream = stream
        self._call = call
        self._left = call.max_bytes + (call.max_entries + 1) * ENTRY_BYTES + HEADER_BYTES

    def read(self, size: int) -> bytes:
        found: bytes = self._stream.read(size)
        self._left -= len(found)
        if self._left < 0:
            raise refused(self._call, "", f"holds more than {self._call.max_bytes} bytes")
        return found


class _TarInfo(tarfile.TarInfo):
    """Refuses a header that tarfile would take into memory at whatever size it says."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and self.size > HEADER_BYTES:
            raise tarfile.ReadError("a header is too long")
        return super()._proc_member(tar)  # type: ignore[misc]  # of tarfile, since Python 2.5


def _of_tar(stream: _Counted, call: files.Unpack) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarInfo) as tar:  # type: ignore[call-overload]
        for each in tar:
            if not (each.isdir() or each.isreg()) or each.sparse is not None or each.type == tarfile.GNUTYPE_SPARSE:
                raise refused(call, each.name, "is neither a file nor a directory")
            # tarfile keeps every member that it has seen; those behind are not asked for again.
            tar.members = []
            yield Member(
                name=each.name,
                parts=_parts(each.name, call),
                directory=each.isdir(),
                executable=bool(each.mode & 0o100),
                open=lambda each=each: tar.extractfile(each),  # type: ignore[misc]
            )


def _of_zip(file: io.FileIO, call: files.Unpack) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for each in archive.infolist():
            kind = stat.S_IFMT(each.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise refused(call, each.filename, "is neither a file nor a directory")
            if each.flag_bits & 1:
                raise refused(call, each.filename, "is encrypted")
            if each.compress_type not in _COMPRESSIONS:
                raise refused(call, each.filename, "is compressed in a way that is not read")
            yield Member(
                name=each.filename,
                parts=_parts(each.orig_filename, call),
                directory=each.is_dir(),
                executable=bool(each.external_attr >> 16 & 0o100),
                open=lambda each=each: archive.open(each),  # type: ignore[misc]
            )


def _parts(name: str, call: files.Unpack) -> list[str]:
    """Split a member's name; one that would lead anywhere but beneath is refused."""
    if name.startswith("/"):
        raise refused(call, name, "is absolute")
    parts = [each for each in name.split("/") if each not in ("", ".")]
    if ".." in parts:
        raise refused(call, name, "has the component '..'")
    if any(is_ours(each.casefold()) for each in parts):
        raise refused(call, name, "has a name that is Gaia's own")
    if len(parts) > DEPTH_LIMIT or "\0" in name:
        raise refused(call, name, "has a name that no file has")
    return parts


def _require_directory(fd: int, call: files.Unpack) -> None:
    """Refuse a zip whose directory is longer than its bound of entries allows, before it is read."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, _END.size + _END_TAIL, max(0, size - _END.size - _END_TAIL))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise zipfile.BadZipFile("it has no end record")
    _, _, _, _, entries, length, start, _ = _END.unpack_from(tail, at)
    if entries == 0xFFFF or 0xFFFFFFFF in (length, start):  # noqa: PLR2004 - zip64's marks (APPNOTE 4.4.1.4)
        # The true length stands in another record; the directory is at most what lies before this one.
        length = _zip64_length(tail, at)
    elif entries > call.max_entries:
        raise refused(call, "", f"holds more than {call.max_entries} entries")
    if length > (call.max_entries + 1) * DIRECTORY_ENTRY_BYTES:
        raise refused(call, "", f"has a directory that is too long for {call.max_entries} entries")


def _zip64_length(tail: bytes, before: int) -> int:
    """Give the length of a zip64's directory (APPNOTE 4.3.14)."""
    at = tail.rfind(b"PK\x06\x06", 0, before)
    if at < 0 or before - at < 56:  # noqa: PLR2004 - the length of the record
        raise zipfile.BadZipFile("it has no end record")
    return int.from_bytes(tail[at + 40 : at + 48], "little")


def refused(call: files.Unpack, member: str, reason: str) -> ArchiveRefused:
    """Make the error for an archive that is refused."""
    return ArchiveRefused(call.path, member[:200].encode("utf-8", "replace").decode(), reason)


def refuse_broken(call: files.Unpack, failure: Exception) -> NoReturn:
    """Raise the error for one of `BROKEN`."""
    reason = str(failure)[:200] or type(failure).__name__
    raise refused(call, "", f"is no {format_of(call)}: {reason}") from None

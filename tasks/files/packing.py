"""Making archives: tar, plain or compressed, and zip, written as one stream within bounds."""

import gzip
import io
import os
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, Protocol, cast

import zstandard

from gaia.contracts import files
from gaia.contracts.base import is_unicode
from gaia.errors import ArchiveRefused
from tasks.files.drafts import CHUNK_BYTES, Sink
from tasks.files.listing import Walk
from tasks.files.reading import Bounded
from tasks.files.writing import Terms, Writer
from tasks.roots.roots import Roots, translated
from tasks.scope import Scope

ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""A zip tells no earlier time (APPNOTE 4.4.6)."""

_LEVEL_GZIP: Final = 6
_LEVEL_ZSTD: Final = 3


class Target(Protocol):
    """An archive that is being written."""

    def directory(self, name: str, found: os.stat_result) -> None:
        """Add a directory."""

    def file(self, name: str, found: os.stat_result, content: io.FileIO) -> None:
        """Add a file of the size that was found."""


class Packer:
    """Makes archives. It owns nothing."""

    def __init__(self, roots: Roots, writer: Writer) -> None:
        """Take the roots."""
        self._roots = roots
        self._writer = writer

    def pack(self, call: files.Pack, scope: Scope) -> files.Packed:
        """Make an archive of a file or a directory.

        Raises:
            ArchiveRefused: it would hold more than the bounds, or something that is neither file nor directory.
            PathDenied, FileMissing, FileFailed, DiskFull, QuotaExceeded, FileBusy, NotConfigured
            Cancelled, DeadlineExceeded
        """
        bounds = _Bounds(call)

        def fill(sink: Sink) -> None:
            buffered = io.BufferedWriter(sink, CHUNK_BYTES)
            with _FORMS[call.format](cast("io.BufferedWriter", buffered)) as target:
                for name, path in self._members(call, scope):
                    scope.check()
                    self._add(target, name, path, bounds, scope)
            buffered.flush()
            buffered.detach()

        written = self._writer.put(call.target, fill, Terms(durable=call.durable), scope)
        return files.Packed(
            path=call.target, size_bytes=written.size_bytes, entries=bounds.entries, content_bytes=bounds.size_bytes
        )

    def _members(self, call: files.Pack, scope: Scope) -> Iterator[tuple[str, str]]:
        """Give the name of each member, and its path."""
        if not call.path.endswith(":"):
            with self._roots.parent(call.path) as (directory, name), translated(call.path):
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                yield name, call.path
                return
        joint = "" if call.path.endswith(":") else "/"
        with self._roots.directory(call.path) as fd, translated(call.path):
            for each in Walk(files.Walk(call.path, kind="any"), [], scope).beneath(fd):
                yield each, f"{call.path}{joint}{each}"

    def _add(self, target: Target, name: str, path: str, bounds: "_Bounds", scope: Scope) -> None:
        if not is_unicode(name):
            raise bounds.refuse(name.encode("utf-8", "replace").decode(), "has a name that is no UTF-8")
        with self._roots.parent(path) as (directory, last), translated(path):
            found = os.stat(last, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            bounds.count(name, 0)
            target.directory(name, found)
            return
        if not stat.S_ISREG(found.st_mode):
            raise bounds.refuse(name, "is neither a file nor a directory")
        with self._roots.reading(path) as fd:
            opened = os.fstat(fd)
            bounds.count(name, opened.st_size)
            with translated(path):
                target.file(name, opened, Bounded(fd, scope))


class _Bounds:
    """What an archive holds so far."""

    def __init__(self, call: files.Pack) -> None:
        self._call = call
        self.entries = 0
        self.size_bytes = 0

    def count(self, name: str, size_bytes: int) -> None:
        self.entries += 1
        self.size_bytes += size_bytes
        if self.entries > self._call.max_entries:
            raise self.refuse(name, f"would be more than {self._call.max_entries} entries")
        if self.size_bytes > self._call.max_bytes:
            raise self.refuse(name, f"would make it more than {self._call.max_bytes} bytes")

    def refuse(self, name: str, reason: str) -> ArchiveRefused:
        return ArchiveRefused(self._call.target, name[:200], reason)


class _Tar:
    def __init__(self, stream: Any) -> None:
        # PAX: names of any length, in UTF-8 (POSIX.1-2001).
        self._tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES)  # noqa: SIM115 - `close` closes it

    def directory(self, name: str, found: os.stat_result) -> None:
        self._tar.addfile(self._info(name, found, tarfile.DIRTYPE))

    def file(self, name: str, found: os.stat_result, content: io.FileIO) -> None:
        info = self._info(name, found, tarfile.REGTYPE)
        info.size = found.st_size
        self._tar.addfile(info, content)

    def close(self) -> None:
        self._tar.close()

    def _info(self, name: str, found: os.stat_result, kind: bytes) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.mode = stat.S_IMODE(found.st_mode) & 0o777
        info.mtime = int(found.st_mtime)
        return info


class _Zip:
    def __init__(self, stream: Any) -> None:
        self._zip = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED)

    def directory(self, name: str, found: os.stat_result) -> None:
        info = self._info(name + "/", found)
        info.compress_type = zipfile.ZIP_STORED
        info.external_attr |= 0x10  # MS-DOS' mark of a directory
        self._zip.writestr(info, b"")

    def file(self, name: str, found: os.stat_result, content: io.FileIO) -> None:
        info = self._info(name, found)
        info.file_size = found.st_size
        left = found.st_size  # what is added meanwhile was not counted
        with self._zip.open(info, "w") as member:
            while left and (chunk := content.read(min(left, CHUNK_BYTES))):
                member.write(chunk)
                left -= len(chunk)

    def close(self) -> None:
        self._zip.close()

    def _info(self, name: str, found: os.stat_result) -> zipfile.ZipInfo:
        when = time.gmtime(found.st_mtime)[:6]
        info = zipfile.ZipInfo(name, max(when, ZIP_EPOCH))
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = (found.st_mode & 0xFFFF) << 16
        return info


@contextmanager
def _plain(stream: io.BufferedWriter) -> Iterator[Target]:
    with closing(_Tar(stream)) as found:
        yield found


@contextmanager
def _gzipped(stream: io.BufferedWriter) -> Iterator[Target]:
    with gzip.GzipFile("", "wb", _LEVEL_GZIP, stream, 0) as packed, closing(_Tar(packed)) as found:
        yield found


@contextmanager
def _zstandard(stream: io.BufferedWriter) -> Iterator[Target]:
    compressor = zstandard.ZstdCompressor(_LEVEL_ZSTD, write_checksum=True)
    with compressor.stream_writer(stream, closefd=False) as packed, closing(_Tar(packed)) as found:
        yield found


@contextmanager
def _zipped(stream: io.BufferedWriter) -> Iterator[Target]:
    with closing(_Zip(stream)) as found:
        yield found


_FORMS: Final[dict[str, Callable[[io.BufferedWriter], Any]]] = {
    "tar": _plain,
    "tar.gz": _gzipped,
    "tar.zst": _zstandard,
    "zip": _zipped,
}

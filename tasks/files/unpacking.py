"""Making a directory of an archive, whole or not at all.

The members are written into a directory among the root's drafts, locked by its writer; renamed when all are there.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from gaia.contracts import files
from gaia.errors import BodyTooLarge, FileFailed
from tasks.files.accounts import Account
from tasks.files.archives import BROKEN, Member, members, refuse_broken, refused
from tasks.files.drafts import CHUNK_BYTES, Sink
from tasks.files.writing import Terms, Writer
from tasks.roots.roots import Roots, translated
from tasks.scope import Scope

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacker:
    """Unpacks archives. It owns nothing."""

    def __init__(self, roots: Roots, writer: Writer) -> None:
        """Take the roots."""
        self._roots = roots
        self._writer = writer

    def unpack(self, call: files.Unpack, scope: Scope) -> files.Unpacked:
        """Make a directory of what an archive holds.

        Raises:
            ArchiveRefused, InvalidCall
            PathDenied, FileMissing, FileFailed, DiskFull, QuotaExceeded, FileBusy, NotConfigured
            Cancelled, DeadlineExceeded
        """
        scope.check()
        with ExitStack() as stack:
            source = stack.enter_context(self._roots.reading(call.path))
            terms = Terms(durable=call.durable)
            directory, name, account = stack.enter_context(self._writer.place(call.target, terms, scope))
            stack.enter_context(translated(call.target))
            _require_free(directory, name, call)
            place = self._roots.annex(call.target).place_for(directory)
            with _staged(place) as (draft, staging):
                unpacked = _Contents(call, scope, self._roots, staging, account).fill(source)
                if call.durable:
                    _sync_beneath(staging)
                os.rename(draft, name, src_dir_fd=place, dst_dir_fd=directory)
            if call.durable:
                os.fsync(directory)
            if account is not None:
                account.settle()
            return unpacked


@contextmanager
def _staged(place: int) -> Iterator[tuple[str, int]]:
    """Make a directory to write to; what is still there under its name at the end is removed."""
    name, fd = _make_locked(place)
    try:
        yield name, fd
    finally:
        os.close(fd)
        shutil.rmtree(name, ignore_errors=True, dir_fd=place)


def _make_locked(place: int) -> tuple[str, int]:
    """Make a directory that no sweep removes; one that did so before the lock was held makes it begin again."""
    while True:
        name = f".{secrets.token_hex(16)}.gaia"
        os.mkdir(name, dir_fd=place)
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=place)
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return name, fd
        os.close(fd)


def _require_free(directory: int, name: str, call: files.Unpack) -> None:
    """Refuse a target that rename(2) would refuse in the end, before the work."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        return
    try:
        with os.scandir(fd) as found:
            if next(found, None) is not None:
                raise FileFailed(call.target, "Directory not empty")
    finally:
        os.close(fd)


class _Contents:
    """What is unpacked so far."""

    def __init__(self, call: files.Unpack, scope: Scope, roots: Roots, staging: int, account: Account | None) -> None:
        self._call = call
        self._scope = scope
        self._roots = roots
        self._staging = staging
        self._account = account
        self._entries = 0
        self._directories: set[tuple[str, ...]] = set()
        self._left_bytes = call.max_bytes

    def fill(self, source: int) -> files.Unpacked:
        """Write every member."""
        try:
            for number, each in enumerate(members(source, self._call), 1):
                self._scope.check()
                self._count(each, number)
                self._write(each)
        except BROKEN as failure:
            refuse_broken(self._call, failure)
        return files.Unpacked(
            path=self._call.target, entries=self._entries, content_bytes=self._call.max_bytes - self._left_bytes
        )

    def _count(self, member: Member, number: int) -> None:
        """Count a member and the directories that its name makes, each once; a directory may come again."""
        above = tuple(member.parts if member.directory else member.parts[:-1])
        while above and above not in self._directories and len(self._directories) <= self._call.max_entries:
            self._directories.add(above)
            self._entries += 1
            above = above[:-1]
        self._entries += not member.directory
        if max(self._entries, number) > self._call.max_entries:
            raise refused(self._call, member.name, f"is more than {self._call.max_entries} entries")

    def _write(self, member: Member) -> None:
        above = member.parts if member.directory else member.parts[:-1]
        try:
            directory = self._roots.make_beneath(self._staging, above, durable=False)
        except NotADirectoryError:
            raise refused(self._call, member.name, "lies beneath a file") from None
        try:
            if not member.directory:
                self._write_file(directory, member)
        finally:
            os.close(directory)

    def _write_file(self, directory: int, member: Member) -> None:
        if not member.parts:
            raise refused(self._call, member.name, "has no name")
        try:
            fd = os.open(member.parts[-1], _CREATE, 0o755 if member.executable else 0o644, dir_fd=directory)
        except (FileExistsError, IsADirectoryError):
            raise refused(self._call, member.name, "comes twice") from None
        except UnicodeEncodeError:
            raise refused(self._call, member.name, "has a name that no file has") from None
        try:
            self._pour(member, fd)
            if self._call.durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _pour(self, member: Member, fd: int) -> None:
        claim = None
        if self._account is not None:
            self._account.grow(0, 1)
            claim = self._account.grow
        check, left = self._scope.check, self._left_bytes
        sink = Sink(fd, self._call.target, check, claim, limit_bytes=left, summed=False)
        with member.open() as content:
            try:
                while chunk := content.read(CHUNK_BYTES):
                    sink.write(chunk)
            except BodyTooLarge:
                raise refused(self._call, member.name, f"makes it more than {self._call.max_bytes} bytes") from None
        self._left_bytes -= sink.size_bytes


def _sync_beneath(fd: int) -> None:
    """Put the names of a tree of directories on the disk; it is the caller's own, so a link is none of its parts."""
    for _, _, _, inner in os.fwalk(".", dir_fd=fd, follow_symlinks=False):
        os.fsync(inner)

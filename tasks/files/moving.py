"""Copying, moving, deleting, and making directories."""

import errno
import os
import stat
from contextlib import ExitStack, suppress
from typing import Final

from gaia.contracts import files
from gaia.errors import FileFailed, FileMissing, PathDenied, PreconditionFailed
from tasks.files.accounts import Account, Accounts
from tasks.files.drafts import CHUNK_BYTES, Sink
from tasks.files.renaming import rename_unless_exists
from tasks.files.writing import ABSENT, Terms, Writer, size_of
from tasks.roots.roots import Roots, split, translated
from tasks.scope import Scope

_INTO: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Mover:
    """Copies, moves, deletes. It owns nothing."""

    def __init__(self, roots: Roots, accounts: Accounts, writer: Writer) -> None:
        """Take the roots."""
        self._roots = roots
        self._accounts = accounts
        self._writer = writer

    def copy(self, call: files.Copy, scope: Scope) -> files.Written:
        """Copy a file. One that is replaced meanwhile is copied as it was when it was opened."""
        with self._roots.reading(call.path) as source:

            def fill(sink: Sink) -> None:
                pour(source, call.path, sink)

            terms = Terms(durable=call.durable, if_absent=call.if_absent)
            return self._writer.put(call.target, fill, terms, scope)

    def move(self, call: files.Move, scope: Scope) -> files.Moved:
        """Move a file or a directory; between roots, or file systems beneath one, a file is copied and deleted."""
        scope.check()
        if split(call.path)[0] != split(call.target)[0] or not self._rename(call, scope):
            self.copy(files.Copy(call.path, call.target, durable=call.durable, if_absent=call.if_absent), scope)
            self.delete(files.Delete(call.path, durable=call.durable), scope)
        return files.Moved(path=call.path, target=call.target)

    def _rename(self, call: files.Move, scope: Scope) -> bool:
        """Rename within a root; False if that would cross file systems."""
        terms = Terms(durable=call.durable)
        # Before the target's directories are made.
        with self._roots.parent(call.path) as (above, name), translated(call.path):
            os.stat(name, dir_fd=above, follow_symlinks=False)
        with (
            self._roots.parent(call.path) as (above, name),
            self._writer.place(call.target, terms, scope) as (directory, target, account),
            translated(call.path),
        ):
            replaced = size_of(directory, target)
            same = _same(above, name, directory, target)
            try:
                if call.if_absent:
                    rename_unless_exists(above, name, directory, target)
                else:
                    os.rename(name, target, src_dir_fd=above, dst_dir_fd=directory)
            except OSError as failure:
                if failure.errno == errno.EXDEV:
                    return False
                if call.if_absent and failure.errno == errno.EEXIST:
                    raise PreconditionFailed(call.target, ABSENT, "one") from None
                raise _of_target(call, failure) from None
            if account is not None and replaced is not None and not same:
                account.shrink(replaced, 1)
            if call.durable:
                os.fsync(directory)
                os.fsync(above)
        return True

    def delete(self, call: files.Delete, scope: Scope) -> files.Deleted:
        """Delete a file, a link, or a directory. A recursive one that fails has deleted a part."""
        scope.check()
        try:
            with ExitStack() as stack:
                account = stack.enter_context(self._accounts.opened(call.path, scope))
                directory, name = stack.enter_context(self._roots.parent(call.path))
                stack.enter_context(translated(call.path))
                if account is not None:
                    locks = self._roots.annex(call.path).locks
                    stack.enter_context(locks.holding(directory, name, call.path, scope))
                entries, size = _delete(directory, name, account, scope, recursive=call.recursive)
                if call.durable:
                    os.fsync(directory)
        except FileMissing:
            if not call.missing_ok:
                raise
            entries = size = 0
        return files.Deleted(path=call.path, entries=entries, size_bytes=size)

    def make_dir(self, call: files.MakeDir, scope: Scope) -> files.Made:
        """Make a directory and those above it."""
        scope.check()
        with self._roots.parent(call.path, make=True, durable=call.durable) as (directory, name), translated(call.path):
            try:
                os.mkdir(name, dir_fd=directory)
                created = True
            except FileExistsError:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if not call.exist_ok or not stat.S_ISDIR(found.st_mode):
                    raise
                created = False
            if created and call.durable:
                os.fsync(directory)
        return files.Made(path=call.path, created=created)


def pour(source: int, path: str, sink: Sink) -> None:
    """Copy what is left of a file into a sink; a failure to read names the source's path."""
    while True:
        with translated(path):
            chunk = os.read(source, CHUNK_BYTES)
        if not chunk:
            return
        sink.write(chunk)


def _same(above: int, name: str, directory: int, target: str) -> bool:
    """Say whether both names are of one file: rename(2) then does nothing."""
    with suppress(FileNotFoundError):
        one = os.stat(name, dir_fd=above, follow_symlinks=False)
        other = os.stat(target, dir_fd=directory, follow_symlinks=False)
        return os.path.samestat(one, other)
    return False


def _of_target(call: files.Move, failure: OSError) -> Exception:
    """Make the error of a rename, which may be the source's or the target's."""
    if failure.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG):
        return FileFailed(call.target, os.strerror(failure.errno))
    if failure.errno == errno.EINVAL:  # rename(2): a directory into itself
        return PathDenied(call.target, "lies beneath what would be moved there")
    return failure


def _delete(directory: int, name: str, account: Account | None, scope: Scope, *, recursive: bool) -> tuple[int, int]:
    """Delete what a name is of; give how many entries that were, and the bytes of the files among them."""
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        return _unlink(directory, name, found, account)
    if not recursive:
        os.rmdir(name, dir_fd=directory)
        return 1, 0
    return _delete_beneath(directory, name, account, scope)


def _unlink(directory: int, name: str, found: os.stat_result, account: Account | None) -> tuple[int, int]:
    os.unlink(name, dir_fd=directory)
    size = found.st_size if stat.S_ISREG(found.st_mode) else 0
    if account is not None and stat.S_ISREG(found.st_mode):
        account.shrink(size, 1)
    return 1, size


def _delete_beneath(directory: int, name: str, account: Account | None, scope: Scope) -> tuple[int, int]:
    """Delete a directory and all beneath it; a descriptor is held for each level, so no swapped link is followed."""
    entries = size = 0
    # Each level: the directory that holds it, its name there, its descriptor.
    levels = [(directory, name, os.open(name, _INTO, dir_fd=directory))]
    try:
        while levels:
            scope.check()
            above, own, fd = levels[-1]
            inner = None
            with os.scandir(fd) as found:
                for each in found:
                    if each.is_dir(follow_symlinks=False):
                        inner = each.name
                        break
                    count, bytes_ = _unlink(fd, each.name, each.stat(follow_symlinks=False), account)
                    entries, size = entries + count, size + bytes_
            if inner is not None:
                levels.append((fd, inner, os.open(inner, _INTO, dir_fd=fd)))
                continue
            os.rmdir(own, dir_fd=above)
            entries += 1
            os.close(levels.pop()[2])
    finally:
        for _, _, fd in levels:
            os.close(fd)
    return entries, size

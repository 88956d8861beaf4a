"""Copying, moving, deleting, and making directories."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

from gaia.contracts import files
from gaia.errors import FileFailed, FileMissing, PathDenied, PreconditionFailed
from tasks.files.accounts import Account, Accounts
from tasks.files.drafts import CHUNK_BYTES, Sink
from tasks.files.renaming import rename_unless_exists
from tasks.files.writing import ABSENT, Terms, Writer, size_of
from tasks.roots.descent import Descent
from tasks.roots.roots import Roots, split, translated
from tasks.scope import Scope


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
            self._carry(call, scope)
        return files.Moved(path=call.path, target=call.target)

    def _carry(self, call: files.Move, scope: Scope) -> None:
        """Copy a file and delete it, unless another has taken its name meanwhile."""
        with self._roots.reading(call.path) as source:
            before = os.fstat(source)
            terms = Terms(durable=call.durable, if_absent=call.if_absent)
            self._writer.put(call.target, lambda sink: pour(source, call.path, sink), terms, scope)
            with self._roots.reading(call.path) as found, translated(call.path):
                now = os.fstat(found)
            if not os.path.samestat(before, now) or (before.st_size, before.st_mtime_ns) != (
                now.st_size,
                now.st_mtime_ns,
            ):
                raise PreconditionFailed(call.path, "the file that was copied", "one that has changed")
            self.delete(files.Delete(call.path, durable=call.durable), scope)

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
            with self._writer.locked(call.target, directory, target, scope):
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
                deletion = _Deletion(account, lambda place, each: self._writer.locked(call.path, place, each, scope))
                deletion.of(directory, name, scope, recursive=call.recursive)
                if call.durable:
                    os.fsync(directory)
        except FileMissing:
            if not call.missing_ok:
                raise
            return files.Deleted(path=call.path, entries=0, size_bytes=0)
        return files.Deleted(path=call.path, entries=deletion.entries, size_bytes=deletion.size_bytes)

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


class _Deletion:
    """What is deleted so far."""

    def __init__(self, account: Account | None, locked: Callable[[int, str], AbstractContextManager[None]]) -> None:
        self._account = account
        self._locked = locked
        self.entries = 0
        self.size_bytes = 0

    def of(self, directory: int, name: str, scope: Scope, *, recursive: bool) -> None:
        """Delete what a name is of."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            with self._locked(directory, name):
                self._unlink(directory, name)
        elif recursive:
            self._tree(directory, name, scope)
        else:
            self._rmdir(directory, name)

    def _tree(self, directory: int, name: str, scope: Scope) -> None:
        """Delete a directory and all beneath it; no link that takes the place of one is followed."""
        with Descent(directory) as descent:
            descent.down(name)
            while descent.depth:
                scope.check()
                inner = self._files_of(descent.fd)
                if inner is not None:
                    descent.down(inner)
                else:
                    self._rmdir_left(descent)

    def _files_of(self, fd: int) -> str | None:
        """Delete files until a directory comes, and give its name, None behind the last."""
        with os.scandir(fd) as found:
            for each in found:
                if each.is_dir(follow_symlinks=False):
                    return each.name
                self._unlink(fd, each.name)
        return None

    def _rmdir_left(self, descent: Descent) -> None:
        name = descent.up()
        self._rmdir(descent.fd, name)

    def _rmdir(self, directory: int, name: str) -> None:
        os.rmdir(name, dir_fd=directory)
        self.entries += 1

    def _unlink(self, directory: int, name: str) -> None:
        size = size_of(directory, name)
        os.unlink(name, dir_fd=directory)
        self.entries += 1
        self.size_bytes += size or 0
        if self._account is not None and size is not None:
            self._account.shrink(size, 1)

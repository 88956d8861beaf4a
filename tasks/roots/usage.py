"""What a root holds, in bytes and in files, for its quota: exact over threads and processes, by one locked record.

A growth is recorded before it happens and taken back if it does not, so whoever is killed in between leaves the record
too high, never too low. `recount` puts it right when nobody writes, as at the start of the first worker. What other
programs write beneath a root is seen by the next recount alone.
"""

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from gaia.errors import FileBusy, QuotaExceeded
from tasks.roots.descent import Descent
from tasks.roots.locks import WAIT_S, flocked
from tasks.scope import Scope

RECOUNT_S: Final = 600.0
"""The longest that a first count is waited for; whoever writes waits with it."""

_FORM: Final = struct.Struct("<qq")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Used(NamedTuple):
    """Bytes and files; of a quota, None is no bound."""

    size_bytes: int
    files: int


class Quota(NamedTuple):
    """What a root may hold."""

    size_bytes: int | None = None
    files: int | None = None


class Usage:
    """The record of one root."""

    def __init__(self, annex: int, root: int) -> None:
        """Use the annex for the record; both descriptors stay the caller's."""
        self._annex = annex
        self._root = root

    @contextmanager
    def writing(self, path: str, scope: Scope) -> Iterator[None]:
        """Keep a recount away while the block changes what is counted. The first ever counts the root.

        Raises:
            FileBusy, Cancelled, DeadlineExceeded
        """
        if self.read(path, scope) is None:
            self.recount(path, scope, wait_s=RECOUNT_S)
        ends_at = time.monotonic() + scope.bound_s(RECOUNT_S)
        with flocked(self._annex, "writers", fcntl.LOCK_SH, ends_at, path, scope):
            yield

    def change(self, size_bytes: int, files: int, quota: Quota, path: str, scope: Scope) -> None:
        """Record a growth or, with negative numbers, what has gone. What shrinks is never refused.

        Raises:
            QuotaExceeded: it would pass the quota; nothing is recorded.
            FileBusy, Cancelled, DeadlineExceeded
        """
        ends_at = time.monotonic() + WAIT_S
        with flocked(self._annex, "usage", fcntl.LOCK_EX, ends_at, path, scope) as fd:
            used = _read(fd) or Used(0, 0)
            after = Used(max(0, used.size_bytes + size_bytes), max(0, used.files + files))
            if size_bytes > 0 and quota.size_bytes is not None and after.size_bytes > quota.size_bytes:
                raise QuotaExceeded(path, "bytes", quota.size_bytes)
            if files > 0 and quota.files is not None and after.files > quota.files:
                raise QuotaExceeded(path, "files", quota.files)
            os.pwrite(fd, _FORM.pack(*after), 0)

    def read(self, path: str, scope: Scope) -> Used | None:
        """Give what is recorded, None if nothing was counted yet."""
        with flocked(self._annex, "usage", fcntl.LOCK_SH, time.monotonic() + WAIT_S, path, scope) as fd:
            return _read(fd)

    def recount(self, path: str, scope: Scope, *, wait_s: float = 0.0) -> bool:
        """Count anew, once nobody writes; False if somebody still does after `wait_s`.

        Raises:
            Cancelled, DeadlineExceeded
            OSError: a directory cannot be read.
        """
        try:
            with flocked(self._annex, "writers", fcntl.LOCK_EX, time.monotonic() + wait_s, path, scope):
                if wait_s and self.read(path, scope) is not None:
                    return True  # another counted while this one waited
                found = count(self._root, scope)
                with flocked(self._annex, "usage", fcntl.LOCK_EX, time.monotonic() + WAIT_S, path, scope) as fd:
                    os.pwrite(fd, _FORM.pack(*found), 0)
        except FileBusy:
            return False
        return True


def count(root: int, scope: Scope) -> Used:
    """Give what regular files lie beneath a directory, but not what Gaia keeps there, or what may not be read."""
    top = os.open(".", _DIRECTORY, dir_fd=root)
    try:
        with Descent(top) as descent:
            inner, (size_bytes, files) = _count_one(top)
            todo = [inner]
            while todo:
                scope.check()
                if not todo[-1]:
                    todo.pop()
                    if todo:
                        descent.up()
                    continue
                try:
                    descent.down(todo[-1].pop())
                except (FileNotFoundError, NotADirectoryError, PermissionError):
                    continue
                inner, found = _count_one(descent.fd)
                todo.append(inner)
                size_bytes, files = size_bytes + found.size_bytes, files + found.files
    finally:
        os.close(top)
    return Used(size_bytes, files)


def _count_one(fd: int) -> tuple[list[str], Used]:
    size_bytes = files = 0
    inner: list[str] = []
    with os.scandir(fd) as entries:
        for each in entries:
            if each.name == ".gaia":
                continue
            try:
                if each.is_dir(follow_symlinks=False):
                    inner.append(each.name)
                elif each.is_file(follow_symlinks=False):
                    size_bytes += each.stat(follow_symlinks=False).st_size
                    files += 1
            except FileNotFoundError:
                continue  # it has gone meanwhile
    return inner, Used(size_bytes, files)


def _read(fd: int) -> Used | None:
    found = os.pread(fd, _FORM.size, 0)
    return Used(*_FORM.unpack(found)) if len(found) == _FORM.size else None

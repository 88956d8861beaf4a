"""Putting contents at paths: whole or not at all, within the quota, on conditions; and appending."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from gaia.codec import content
from gaia.contracts import files
from gaia.errors import FileMissing, PathDenied, PreconditionFailed
from tasks.files import tags
from tasks.files.accounts import Account, Accounts
from tasks.files.drafts import Draft, Sink
from tasks.roots.roots import Roots, translated
from tasks.scope import Scope

ABSENT: Final = "no file"
_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True)
class Terms:
    """How a content is put: durably or not, on which condition, and how large it may be."""

    durable: bool = True
    if_etag: str | None = None
    if_absent: bool = False
    limit_bytes: int | None = None


class Writer:
    """Puts contents at paths beneath the roots. It owns nothing."""

    def __init__(self, roots: Roots, accounts: Accounts) -> None:
        """Take the roots."""
        self._roots = roots
        self._accounts = accounts

    def put(self, path: str, fill: Callable[[Sink], None], terms: Terms, scope: Scope) -> files.Written:
        """Let `fill` write a content, and put it at a path.

        Raises:
            PreconditionFailed: by the terms; nothing has changed.
            BodyTooLarge: over the terms' limit.
            PathDenied, FileMissing, FileFailed, DiskFull, QuotaExceeded, FileBusy, NotConfigured
            Cancelled, DeadlineExceeded
        """
        with self.place(path, terms, scope) as (directory, name, account), translated(path):
            taken = None if account is None else account.replacing(size_of(directory, name))
            with Draft(directory, self._roots.annex(path)) as draft:
                claim = None if account is None else account.grow
                sink = Sink(draft.fd, path, scope.check, claim, limit_bytes=terms.limit_bytes)
                try:
                    fill(sink)
                finally:
                    sink.seal()
                if terms.durable:
                    os.fsync(draft.fd)
                # The lock is held for an instant, however long the content took.
                with self.locked(path, directory, name, scope):
                    if terms.if_etag is not None:
                        self._require(path, terms.if_etag, scope)
                    if taken is not None:
                        taken.now(size_of(directory, name))
                    publish(draft, name, path, absent=terms.if_absent)
            # What follows may fail, and the content stands.
            if account is not None:
                account.settle()
            if terms.durable:
                os.fsync(directory)
            return files.Written(path=path, size_bytes=sink.size_bytes, etag=sink.etag)

    @contextmanager
    def place(self, path: str, terms: Terms, scope: Scope) -> Iterator[tuple[int, str, Account | None]]:
        """Open the directory for a path, made if missing."""
        with (
            self._accounts.opened(path, scope) as account,
            self._roots.parent(path, make=True, durable=terms.durable) as (directory, name),
        ):
            yield directory, name, account

    def locked(self, path: str, directory: int, name: str, scope: Scope) -> AbstractContextManager[None]:
        """Keep every other change of a name away while the block looks at its file and changes it."""
        return self._roots.annex(path).locks.holding(directory, name, path, scope)

    def append(self, call: files.Append, scope: Scope) -> files.Appended:
        """Add a body at the end of a file. If that fails the file is cut back to what it was.

        Raises:
            PreconditionFailed, PathDenied, FileMissing, FileFailed, DiskFull, QuotaExceeded, FileBusy, NotConfigured
            Cancelled, DeadlineExceeded
        """
        body, path = content(call.body), call.path
        with ExitStack() as stack:
            account = stack.enter_context(self._accounts.opened(path, scope))
            directory, name = stack.enter_context(self._roots.parent(path, make=True, durable=call.durable))
            stack.enter_context(translated(path))
            stack.enter_context(self.locked(path, directory, name, scope))
            if account is not None:
                account.grow(len(body), 1 if size_of(directory, name) is None else 0)
            fd, before = _open_to_append(directory, name, call)
            stack.callback(os.close, fd)
            try:
                Sink(fd, path, scope.check, None, summed=False).write(body)
                if call.durable:
                    os.fsync(fd)
                    os.fsync(directory)
            except BaseException:
                _cut_back(directory, name, fd, before)
                raise
            if account is not None:
                account.settle()
            return files.Appended(path=path, offset_bytes=before or 0, size_bytes=(before or 0) + len(body))

    def _require(self, path: str, etag: str, scope: Scope) -> None:
        """Compare what is at a path with an etag; the caller holds its lock."""
        try:
            with self._roots.reading(path) as fd, translated(path):
                found = tags.of_descriptor(fd, scope.check)
        except FileMissing:
            found = ABSENT
        if found != etag:
            raise PreconditionFailed(path, etag, found)


def publish(draft: Draft, name: str, path: str, *, absent: bool) -> None:
    """Give a draft its name; the caller holds its lock.

    Raises:
        PreconditionFailed: with `absent`, if it is taken.
        OSError: as link(2) and rename(2).
    """
    try:
        draft.publish(name, absent=absent)
    except FileExistsError:
        raise PreconditionFailed(path, ABSENT, "one") from None


def size_of(directory: int, name: str) -> int | None:
    """Give the size of the regular file of that name, None if there is none."""
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None


def _open_to_append(directory: int, name: str, call: files.Append) -> tuple[int, int | None]:
    """Open a regular file, made if missing, and give its size, None for a new one."""
    try:
        fd = os.open(name, _APPEND, dir_fd=directory)
    except FileNotFoundError:
        if call.if_size_bytes:
            raise PreconditionFailed(call.path, f"{call.if_size_bytes} bytes", ABSENT) from None
        return os.open(name, _APPEND | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory), None
    except OSError as failure:
        if failure.errno in (errno.ELOOP, errno.ENXIO):  # open(2): a link, a FIFO without a reader
            raise PathDenied(call.path, "is no regular file") from None
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise PathDenied(call.path, "is no regular file")
    if call.if_size_bytes not in (None, found.st_size):
        os.close(fd)
        raise PreconditionFailed(call.path, f"{call.if_size_bytes} bytes", f"{found.st_size} bytes")
    return fd, found.st_size


def _cut_back(directory: int, name: str, fd: int, before: int | None) -> None:
    """Make a file what it was before an append that failed; a read-only disk leaves nothing to be undone."""
    with suppress(OSError):
        os.ftruncate(fd, before or 0)
        # Another program may have put its own file there meanwhile.
        if before is None and os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=directory, follow_symlinks=False)):
            os.unlink(name, dir_fd=directory)

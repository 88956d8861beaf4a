"""What a call adds to a root and takes away, against the root's quota."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gaia.errors import GaiaError
from tasks.roots.roots import Roots, translated
from tasks.roots.usage import Quota, Usage
from tasks.scope import Scope


class Account:
    """The changes of one call. Growth is recorded before it happens; what fails is taken back at the end."""

    def __init__(self, usage: Usage, quota: Quota, path: str, scope: Scope) -> None:
        """Record in `usage`."""
        self._usage = usage
        self._quota = quota
        self._path = path
        self._scope = scope
        self._spare_bytes = self._spare_files = 0
        self._grown_bytes = self._grown_files = 0

    def allow(self, size_bytes: int, files: int = 0) -> None:
        """Let the next bytes grow for nothing: they take the place of so many that go."""
        self._spare_bytes += size_bytes
        self._spare_files += files

    def grow(self, size_bytes: int, files: int = 0) -> None:
        """Record a growth.

        Raises:
            QuotaExceeded, FileBusy, Cancelled, DeadlineExceeded
        """
        spared = min(size_bytes, self._spare_bytes)
        if size_bytes - spared or files:
            self._usage.change(size_bytes - spared, files, self._quota, self._path, self._scope)
        self._spare_bytes -= spared
        self._grown_bytes += size_bytes - spared
        self._grown_files += files

    def replacing(self, size_bytes: int | None) -> "Taken":
        """Count on the place of a file of that size, None for none, before its successor is written."""
        self.allow(size_bytes or 0)
        self.grow(0, 1 if size_bytes is None else 0)
        return Taken(self, size_bytes)

    def grow_beyond(self, size_bytes: int, files: int) -> None:
        """Record a growth for which nothing that was allowed is used.

        Raises:
            QuotaExceeded, FileBusy, Cancelled, DeadlineExceeded
        """
        self._usage.change(size_bytes, files, self._quota, self._path, self._scope)
        self._grown_bytes += size_bytes
        self._grown_files += files

    def settle(self) -> None:
        """Say that the growth stands, and give back what was allowed and not used."""
        self._grown_bytes = self._grown_files = 0
        self.shrink(self._spare_bytes, self._spare_files)
        self._spare_bytes = self._spare_files = 0

    def shrink(self, size_bytes: int, files: int = 0) -> None:
        """Record what has gone."""
        if size_bytes or files:
            self._usage.change(-size_bytes, -files, self._quota, self._path, Scope.lasting(_SETTLING_S))

    def undo(self) -> None:
        """Take back the growth that does not stand."""
        size_bytes, files = self._grown_bytes, self._grown_files
        self._grown_bytes = self._grown_files = 0
        self.shrink(size_bytes, files)


class Taken:
    """The file whose place another takes: as it was found at first, and as it is at last."""

    def __init__(self, account: Account, size_bytes: int | None) -> None:
        """Take what was counted on."""
        self._account = account
        self._size_bytes = size_bytes

    def now(self, size_bytes: int | None) -> None:
        """Count what is really replaced; the caller holds the lock of its name until that is done.

        Raises:
            QuotaExceeded, FileBusy, Cancelled, DeadlineExceeded
        """
        more_bytes = (size_bytes or 0) - (self._size_bytes or 0)
        more_files = (size_bytes is not None) - (self._size_bytes is not None)
        self._account.allow(max(0, more_bytes), max(0, more_files))
        if more_bytes < 0 or more_files < 0:
            self._account.grow_beyond(max(0, -more_bytes), max(0, -more_files))
        self._size_bytes = size_bytes


_SETTLING_S: Final = 30.0
"""What has happened is recorded whether or not the call was cancelled meanwhile."""


class Accounts:
    """The accounts of calls on the roots that have a quota."""

    def __init__(self, roots: Roots) -> None:
        """Take the roots."""
        self._roots = roots

    @contextmanager
    def opened(self, path: str, scope: Scope) -> Iterator[Account | None]:
        """Give the account of a call that changes what is beneath a path's root, None if it has no quota.

        Raises:
            FileBusy, PathDenied, FileFailed, NotConfigured, Cancelled, DeadlineExceeded
        """
        quota = self._roots.quota(path)
        if quota is None:
            yield None
            return
        usage = self._roots.annex(path).usage
        with translated(path), usage.writing(path, scope):
            account = Account(usage, quota, path, scope)
            try:
                yield account
            finally:
                account.undo()

    def recount(self) -> None:
        """Count what roots with a quota hold, unless somebody writes there now; for the start of a worker."""
        for name in self._roots.names:
            path = f"{name}:"
            if self._roots.quota(path) is not None:
                try:
                    with translated(path):
                        self._roots.annex(path).usage.recount(path, Scope.lasting(600))
                except GaiaError:
                    continue  # it cannot be used now; the first call will say so

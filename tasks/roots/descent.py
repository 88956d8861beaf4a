"""Going down a tree of directories and up again, never through a link, with a bounded number of descriptors.

A tree may be deeper than a path can tell (by renames) and than a process may hold descriptors. Those of the innermost
levels are held; an outer directory is opened anew, by its way from the top, once the way leads back to it.
"""

import errno
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

HELD: Final = 64
"""Descriptors that one descent holds at most, and one more while it opens a way anew."""

_INTO: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class _Level:
    """A directory on the way: its name, its device and inode number, its descriptor, -1 while that is closed."""

    name: str
    identity: tuple[int, int]
    fd: int


class Descent:
    """A place in a tree; a context manager that closes what it holds."""

    def __init__(self, top: int) -> None:
        """Begin at an open directory, which stays the caller's."""
        self._top = top
        self._way: list[_Level] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        while self._way:
            _close(self._way.pop())

    @property
    def fd(self) -> int:
        """The directory reached; it stays the descent's."""
        return self._way[-1].fd if self._way else self._top

    @property
    def depth(self) -> int:
        """How many levels beneath the top that is."""
        return len(self._way)

    def down(self, name: str) -> None:
        """Go into a directory.

        Raises:
            OSError: as open(2); ENOTDIR for a link. The place is the same then.
        """
        fd = os.open(name, _INTO, dir_fd=self.fd)
        self._way.append(_Level(name, _identity(fd), fd))
        if len(self._way) > HELD:
            _close(self._way[-HELD - 1])

    def up(self) -> str:
        """Go back to the directory above, and give the name of the one that was left.

        Raises:
            OSError: ESTALE if the way to it leads elsewhere by now, else as open(2).
        """
        left = self._way.pop()
        _close(left)
        if self._way and self._way[-1].fd == -1:
            self._reopen()
        return left.name

    def _reopen(self) -> None:
        kept, above = len(self._way) - HELD, self._top
        for index, level in enumerate(self._way):
            level.fd = os.open(level.name, _INTO, dir_fd=above)
            if index and index <= kept:
                _close(self._way[index - 1])
            if _identity(level.fd) != level.identity:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            above = level.fd


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _close(level: _Level) -> None:
    if level.fd != -1:
        os.close(level.fd)
        level.fd = -1

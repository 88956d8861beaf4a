"""Removing a directory that a program may have filled: never through a link, however deep it is.

With the standard library alone, since launchers know no more. Its shutil.rmtree holds a descriptor and a frame for each
level (up to Python 3.12), so a tree of a thousand directories stops it.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Final

LONGEST_S: Final = 30.0
"""For one tree; what is left of it then stays."""

_INTO: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


def remove(path: str) -> bool:
    """Remove a directory and what is in it, or a link in its place, within `LONGEST_S`; say whether that came true."""
    with suppress(OSError):
        os.rmdir(path)  # noqa: PTH106 - mostly it is empty, and this is most of a short run's tidying
        return True
    with suppress(OSError):
        _empty(path, time.monotonic() + LONGEST_S)
        os.rmdir(path)  # noqa: PTH106 - as above
    with suppress(OSError):
        if os.path.islink(path):  # noqa: PTH114 - put in a directory's place
            os.unlink(path)  # noqa: PTH108 - as above
    return not os.path.lexists(path)


def _empty(path: str, ends_at: float) -> None:
    """Remove what is in a directory.

    Level by level: a directory's directories are moved to the top, and it is gone. So no depth needs a way back.

    Raises:
        OSError: if something cannot be removed, or time is up.
    """
    numbers = count()
    with _opened(path) as top:
        while inner := _without_files(top, ends_at):
            for name in inner:
                if not _removed(name, top):
                    with _opened(name, top) as fd:
                        for each in _without_files(fd, ends_at):
                            if not _removed(each, fd):
                                _bring_up(each, fd, top, numbers)
                    os.rmdir(name, dir_fd=top)


def _removed(name: str, at: int) -> bool:
    """Remove a directory if it is empty."""
    with suppress(OSError):
        os.rmdir(name, dir_fd=at)
        return True
    return False


@contextmanager
def _opened(name: str, at: int | None = None) -> Iterator[int]:
    """Open a directory that can be read and changed from here on, whatever its mode was."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        # By the descriptor: a name could lead elsewhere by now.
        os.chmod(f"/proc/self/fd/{fd}", 0o700)  # noqa: PTH101 - as above
        inner = os.open(f"/proc/self/fd/{fd}", _INTO & ~os.O_NOFOLLOW)
    finally:
        os.close(fd)
    try:
        yield inner
    finally:
        os.close(inner)


def _without_files(fd: int, ends_at: float) -> list[str]:
    """Remove what is no directory; give the names of the rest."""
    inner = []
    with os.scandir(fd) as entries:
        for each in list(entries):
            if time.monotonic() > ends_at:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if each.is_dir(follow_symlinks=False):
                inner.append(each.name)
            else:
                os.unlink(each.name, dir_fd=fd)
    return inner


def _bring_up(name: str, fd: int, top: int, numbers: Iterator[int]) -> None:
    """Move a directory to the top, under a name that is free there."""
    with _opened(name, fd):  # to move a directory takes the right to write in it
        pass
    for number in numbers:
        try:
            os.rename(name, f"{number:x}~", src_dir_fd=fd, dst_dir_fd=top)
        except OSError as failure:
            if failure.errno not in _TAKEN:
                raise
        else:
            return

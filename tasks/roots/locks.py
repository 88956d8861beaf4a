"""Locks of paths that hold for threads, processes and, where the file system's flock does, machines."""

import errno
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final

from gaia.errors import FileBusy
from tasks.scope import Scope

STRIPES: Final = 256
"""Two paths may share a lock; one waits for the other then, and nothing else."""

WAIT_S: Final = 10.0
"""A lock is waited for no longer, nor past the call's deadline."""

_POLL_S: Final = 0.002
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Locks:
    """The locks of one root. A thread holds one at a time, so none waits in a circle."""

    def __init__(self, directory: int) -> None:
        """Use a directory for the lock files; its descriptor stays the caller's."""
        self._directory = directory
        self._own = [threading.Lock() for _ in range(STRIPES)]

    def holding(self, parent: int, name: str, path: str, scope: Scope) -> "_Holding":
        """Let one call at a time into the block for a name in a directory, told by its inode number.

        Raises:
            FileBusy: after ten seconds.
            Cancelled, DeadlineExceeded
        """
        stripe = zlib.crc32(f"{os.fstat(parent).st_ino}/{name}".encode(errors="surrogateescape")) % STRIPES
        return _Holding(self._directory, stripe, self._own[stripe], path, scope)


class _Holding:
    """A lock of a path. No generator: every change of a small file takes one."""

    __slots__ = ("_directory", "_fd", "_own", "_path", "_scope", "_stripe")

    def __init__(self, directory: int, stripe: int, own: threading.Lock, path: str, scope: Scope) -> None:
        self._directory = directory
        self._stripe = stripe
        self._own = own
        self._path = path
        self._scope = scope
        self._fd = -1

    def __enter__(self) -> None:
        wait_s = self._scope.bound_s(WAIT_S)
        ends_at = time.monotonic() + wait_s
        # Threads of this process queue here, without asking the kernel again and again.
        if not self._own.acquire(timeout=wait_s):
            raise FileBusy(self._path, wait_s)
        try:
            self._fd = _take(self._directory, f"{self._stripe:02x}", fcntl.LOCK_EX, ends_at, self._path, self._scope)
        except BaseException:
            self._own.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _release(self._fd)
        self._own.release()


@contextmanager
def flocked(directory: int, name: str, kind: int, ends_at: float, path: str, scope: Scope) -> Iterator[int]:
    """Hold the flock of a file, made if it is missing; `ends_at` is monotonic time.

    Raises:
        FileBusy: if another holds it until then.
        Cancelled, DeadlineExceeded
    """
    fd = _take(directory, name, kind, ends_at, path, scope)
    try:
        yield fd
    finally:
        _release(fd)


def _take(directory: int, name: str, kind: int, ends_at: float, path: str, scope: Scope) -> int:
    fd = os.open(name, _OPEN, 0o600, dir_fd=directory)
    try:
        begun = time.monotonic()
        while not locked_at_once(fd, kind):
            _pause(begun, ends_at, path, scope)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _pause(begun: float, ends_at: float, path: str, scope: Scope) -> None:
    """Let a little time pass, within the bounds."""
    if time.monotonic() >= ends_at:
        raise FileBusy(path, round(time.monotonic() - begun, 3))
    scope.cancelled.wait(_POLL_S)
    scope.check()


def _release(fd: int) -> None:
    # Closing alone would leave it to a child that was forked meanwhile.
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def locked_at_once(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take a flock without waiting; say whether that went."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as failure:
        if failure.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True

"""A file that takes the place of another whole or not at all.

The content is written to a file without a name (O_TMPFILE) in the target's directory, so that a worker killed while it
writes leaves nothing behind. A name that is free is then linked in one step. To take another's place the file must
have a name for an instant: it gets one in the root's drafts, locked by its writer, and is renamed. Where the file
system has no files without a name, the draft is named there from the start. A draft that nobody locks is swept at the
next start of a worker. Beneath a mount inside a root, whose files cannot be renamed from the drafts, the draft lies
beside its target instead and is not swept.
"""

import errno
import fcntl
import io
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, Self

from gaia.errors import BodyTooLarge
from tasks.roots.annex import Annex

CHUNK_BYTES: Final = 1 << 20
_MODE: Final = 0o644
_FLAGS: Final = os.O_WRONLY | os.O_CLOEXEC
# open(2): file systems without it, and kernels that do not know the flag.
_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR)

Check = Callable[[], None]
Claim = Callable[[int], None]


class Draft:
    """A file that is written for a name in a directory, mode 0644 less the umask; gone at the end unless published."""

    def __init__(self, directory: int, annex: Annex) -> None:
        """Open it; both stay the caller's.

        Raises:
            OSError: as open(2).
        """
        self._directory = directory
        self._annex = annex
        self._name = f".{secrets.token_hex(16)}.gaia"
        self._place = -1
        try:
            self.fd = os.open(".", _FLAGS | os.O_TMPFILE, _MODE, dir_fd=directory)
        except OSError as failure:
            if failure.errno not in _NO_TMPFILE:
                raise
            self._place = annex.place_for(directory)
            self.fd = _create_locked(self._name, self._place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, and remove the name that it may have."""
        os.close(self.fd)
        if self._place != -1:
            with suppress(FileNotFoundError):  # it was renamed
                os.unlink(self._name, dir_fd=self._place)

    def publish(self, name: str, *, absent: bool = False) -> None:
        """Make it the file of that name; a link of that name is replaced, not followed.

        What it holds is to be on the disk (fsync) before, and the directory after, if the write is durable.

        Raises:
            FileExistsError: with `absent`, if the name is taken.
            OSError: as link(2) and rename(2); nothing has changed then.
        """
        if self._place == -1:
            if not self._link(name, self._directory, may_exist=not absent):
                self._name_it()
                os.rename(self._name, name, src_dir_fd=self._place, dst_dir_fd=self._directory)
        elif absent:
            os.link(self._name, name, src_dir_fd=self._place, dst_dir_fd=self._directory)
        else:
            os.rename(self._name, name, src_dir_fd=self._place, dst_dir_fd=self._directory)

    def _name_it(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        place = self._annex.place_for(self._directory)
        self._link(self._name, place)
        self._place = place

    def _link(self, name: str, place: int, *, may_exist: bool = False) -> bool:
        try:
            # open(2) on O_TMPFILE: this is how a file without a name gets one when /proc is mounted.
            os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=place, follow_symlinks=True)
        except FileExistsError:
            if not may_exist:
                raise
            return False
        return True


def _create_locked(name: str, place: int) -> int:
    """Create a file that no sweep removes; one that did so before the lock was held makes it begin again."""
    while True:
        fd = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, _MODE, dir_fd=place)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


class Sink(io.RawIOBase):
    """Where the content of a draft goes: each chunk is claimed of the quota, counted, and written whole.

    `check` is asked before each chunk; what it or `claim` raises ends the write.
    """

    def __init__(
        self,
        fd: int,
        path: str,
        check: Check,
        claim: Claim | None,
        *,
        limit_bytes: int | None = None,
        summed: bool = True,
    ) -> None:
        """Write to a descriptor, which stays the caller's; `path` is for errors, `limit_bytes` the most it takes."""
        super().__init__()
        self._fd = fd
        self._path = path
        self._check = check
        self._claim = claim
        self._limit_bytes = limit_bytes
        self._sum = sha256() if summed else None
        self._sealed = False
        self.size_bytes = 0

    def seal(self) -> None:
        """Take nothing more: the descriptor may be another's soon, and a buffer that is dropped still flushes."""
        self._sealed = True

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, chunk: Any) -> int:
        """Write a chunk of any size whole.

        Raises:
            BodyTooLarge: past the limit.
            QuotaExceeded, OSError, and what `check` raises.
        """
        with memoryview(chunk) as whole:
            if self._sealed:
                return len(whole)
            for start in range(0, len(whole), CHUNK_BYTES):
                self._check()
                self._put(whole[start : start + CHUNK_BYTES])
            return len(whole)

    @property
    def etag(self) -> str:
        """The tag of what was written: see `tasks.files.tags`."""
        return self._sum.hexdigest() if self._sum is not None else ""

    def _put(self, piece: memoryview) -> None:
        if self._limit_bytes is not None and self.size_bytes + len(piece) > self._limit_bytes:
            raise BodyTooLarge(self._path, self._limit_bytes)
        if self._claim is not None:
            self._claim(len(piece))
        if self._sum is not None:
            self._sum.update(piece)
        rest = piece
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.size_bytes += len(piece)

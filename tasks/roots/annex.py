"""What Gaia keeps in a root: the directory `.gaia`, which no call can name.

    .gaia/identity    128 random bits in hexadecimal: which directory this is, wherever it is mounted
    .gaia/drafts/     files that are about to take their name; each is locked (flock) by its writer while that lives
    .gaia/locks/      256 files, the locks of all paths
    .gaia/usage       bytes and files beneath the root, kept where there is a quota
    .gaia/writers     held shared by whoever changes what `usage` counts

The kernel drops the locks of a process that dies, so whatever can be locked here has lost its owner.
"""

import errno
import os
import re
import secrets
import shutil
import threading
from contextlib import suppress
from typing import Final

from tasks.roots.locks import Locks, locked_at_once
from tasks.roots.usage import Usage

NAME: Final = ".gaia"
DRAFT: Final = re.compile(r"\.[0-9a-f]{32}\.gaia")
"""A draft beside its target, where both are on another file system than the root."""

IDENTITY_BYTES: Final = 32
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_ours(name: str) -> bool:
    """Say whether a name is Gaia's own, and so is neither shown nor counted."""
    return name == NAME or (name.endswith(".gaia") and DRAFT.fullmatch(name) is not None)


class Annex:
    """The directory `.gaia` of one root, made if it is missing. Thread-safe; raises what the operating system says."""

    def __init__(self, root: int) -> None:
        """Open or make it; the root's descriptor stays the caller's."""
        self._opened: list[int] = []
        try:
            self._place = self._directory(NAME, root)
            self.drafts: Final = self._directory("drafts", self._place)
            self.locks: Final = Locks(self._directory("locks", self._place))
        except BaseException:
            self.close()
            raise
        self.device: Final = os.fstat(self._place).st_dev
        self.usage: Final = Usage(self._place, root)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close what is open; to be called when no call runs any more."""
        while self._opened:
            os.close(self._opened.pop())

    def place_for(self, directory: int) -> int:
        """Give the directory in which a draft for another may be named: a rename does not cross file systems."""
        return self.drafts if os.fstat(directory).st_dev == self.device else directory

    def identity(self) -> str:
        """Give the identity, made at the first call anywhere."""
        found = self._read_identity()
        while not found:
            self._write_identity()
            found = self._read_identity()
        return found

    def sweep(self) -> int:
        """Remove what killed writers left; give how much that was."""
        removed = 0
        for name in os.listdir(self.drafts):  # noqa: PTH208 - a descriptor has no Path
            with suppress(FileNotFoundError):
                removed += self._sweep(name)
        return removed

    def _sweep(self, name: str) -> bool:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.drafts)
        try:
            if not locked_at_once(fd):
                return False
            if os.path.isdir(fd):  # noqa: PTH112 - a descriptor has no Path
                shutil.rmtree(name, dir_fd=self.drafts)
            else:
                os.unlink(name, dir_fd=self.drafts)
        finally:
            os.close(fd)
        return True

    def _directory(self, name: str, above: int) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
        fd = os.open(name, _DIRECTORY, dir_fd=above)
        self._opened.append(fd)
        return fd

    def _read_identity(self) -> str:
        return read_identity(self._place)

    def _write_identity(self) -> None:
        """Write a new identity beside and link it, so that the first of two writers wins and none reads a part."""
        draft = secrets.token_hex(16)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.drafts)
        try:
            os.write(fd, secrets.token_hex(16).encode())
            os.fsync(fd)
            with suppress(FileExistsError):
                os.link(draft, "identity", src_dir_fd=self.drafts, dst_dir_fd=self._place)
            os.fsync(self._place)
        finally:
            os.close(fd)
            os.unlink(draft, dir_fd=self.drafts)


def read_identity(place: int) -> str:
    """Read the identity in an annex, "" if there is none."""
    try:
        fd = os.open("identity", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, IDENTITY_BYTES).decode("ascii", "replace")
    finally:
        os.close(fd)


def known_identity(root: int) -> str:
    """Read the identity of a root without making one, "" if it has none; for one that cannot be written."""
    try:
        place = os.open(NAME, _DIRECTORY, dir_fd=root)
    except OSError as failure:
        if failure.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return ""
        raise
    try:
        return read_identity(place)
    finally:
        os.close(place)

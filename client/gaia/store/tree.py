"""The files of the artifact directory: how they are named, made, found and removed.

    incoming/<id>.<random>    drafts: bodies that are being written; nobody reads them
    <x>/<y>/<id>              whole bodies, x and y the first digits of the id
    lock                      held by whoever looks at the files of others before changing one of its own

Every function takes the descriptor of the directory and raises what the operating system says. No link is followed
beneath the directory, and what lies there under another name is never touched.
"""

import errno
import fcntl
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from stat import S_ISREG
from typing import Final, NamedTuple

from gaia.store import bodies
from gaia.store.bodies import CHUNK_BYTES

DRAFT_S: Final = 3600.0
"""A draft that nobody wrote to for so long has lost its writer."""

SKEW_S: Final = 60.0
"""An expired body is removed that much later, since the clocks of two machines differ."""

TURN_S: Final = 10.0
"""Who did not get its turn by then goes on without."""

INCOMING: Final = "incoming"
LOCK: Final = "lock"

_DIGITS = "0123456789abcdef"
_PLACES = (INCOMING, *(f"{first}/{second}" for first in _DIGITS for second in _DIGITS))
_DRAFT = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{16}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# open(2): O_NONBLOCK, since a named pipe would wait for a writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# NFS gives an exclusive lock only on what is open to be written.
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class File(NamedTuple):
    """A file of ours: when it may go (seconds since the epoch), where it lies, its size."""

    due_at: float
    place: str
    name: str
    size_bytes: int


@contextmanager
def turn(root: int, *, wait_s: float = TURN_S) -> Iterator[None]:
    """Let one process and thread after the other into the block, waiting at most so many seconds.

    It keeps writers from standing in each other's way, and no more: where the file system knows no locks, or the holder
    stands still, the block is entered all the same.
    """
    fd = -1
    try:
        with suppress(OSError):
            fd = os.open(LOCK, _LOCK, 0o600, dir_fd=root)
            _lock(fd, time.monotonic() + wait_s)
        yield
    finally:
        if fd != -1:
            # Closing alone would leave it to a child that was forked meanwhile.
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _lock(fd: int, ends_at: float) -> None:
    while time.monotonic() < ends_at:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - jitter is no secret


def open_body(root: int, artifact_id: str) -> int:
    """Open a body to read it, of whatever kind the file is."""
    with _beneath(root, _place(artifact_id)) as shelf:
        return os.open(artifact_id, _READ, dir_fd=shelf)


@contextmanager
def draft(root: int, artifact_id: str) -> Iterator[tuple[int, Callable[[], None]]]:
    """Open a new file to write to, with what makes it a body; unless that was called it is gone at the end."""
    name = f"{artifact_id}.{secrets.token_hex(8)}"
    with _beneath(root, INCOMING, make=True) as incoming:
        fd = os.open(name, _CREATE, 0o600, dir_fd=incoming)

        def publish() -> None:
            with _beneath(root, _place(artifact_id), make=True) as shelf:
                os.rename(name, artifact_id, src_dir_fd=incoming, dst_dir_fd=shelf)
                sync_names(shelf)

        try:
            yield fd, publish
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):  # it was renamed
                os.unlink(name, dir_fd=incoming)


def write(fd: int, chunk: bytes) -> None:
    """Write a chunk whole."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest[:CHUNK_BYTES]) :]


def expire_at(fd: int, moment: float) -> None:
    """Set when a body expires, in seconds since the epoch."""
    os.utime(fd, (moment, moment))


def remove(root: int, file: File) -> bool:
    """Remove a file; False if it has gone already, or has been given a longer life since it was found."""
    with suppress(FileNotFoundError), _beneath(root, file.place) as fd:
        if _due_at(file.place, os.stat(file.name, dir_fd=fd, follow_symlinks=False)) <= file.due_at:
            os.unlink(file.name, dir_fd=fd)
            return True
    return False


def remove_body(root: int, artifact_id: str) -> None:
    """Remove a body, if it is there."""
    with suppress(FileNotFoundError), _beneath(root, _place(artifact_id)) as shelf:
        os.unlink(artifact_id, dir_fd=shelf)


def used_bytes(root: int) -> int:
    """Give the size of all files of ours; one that is renamed meanwhile, and so seen twice, counts once."""
    total_bytes, drafts = 0, dict[str, int]()
    for each in files(root):
        if each.place == INCOMING:
            drafts[each.name.partition(".")[0]] = each.size_bytes
        total_bytes += each.size_bytes if each.place == INCOMING else max(0, each.size_bytes - drafts.get(each.name, 0))
    return total_bytes


def files(root: int, failed: Callable[[OSError], None] | None = None) -> Iterator[File]:
    """Give every file of ours, drafts first; links and whatever else lies there are passed over.

    So is, given `failed`, a directory that cannot be read; without it that is an error.
    """
    for place in _PLACES:
        try:
            yield from _files(root, place)
        except OSError as failure:
            if failed is None:
                raise
            failed(failure)


def _files(root: int, place: str) -> Iterator[File]:
    ours = _DRAFT.fullmatch if place == INCOMING else bodies.is_id
    with suppress(FileNotFoundError, NotADirectoryError), _beneath(root, place) as fd, os.scandir(fd) as entries:
        for each in entries:
            if ours(each.name):
                yield from _file(place, each)


def _file(place: str, entry: "os.DirEntry[str]") -> Iterator[File]:
    with suppress(FileNotFoundError):  # it has gone meanwhile
        found = entry.stat(follow_symlinks=False)
        if S_ISREG(found.st_mode):
            yield File(_due_at(place, found), place, entry.name, found.st_size)


def _due_at(place: str, found: os.stat_result) -> float:
    if place != INCOMING:
        return found.st_mtime + SKEW_S
    # A writer that died right before the rename had set the time of expiry; the change time is not its to set.
    return min(found.st_mtime, found.st_ctime) + DRAFT_S


def _place(name: str) -> str:
    return f"{name[0]}/{name[1]}"


@contextmanager
def _beneath(root: int, place: str, *, make: bool = False) -> Iterator[int]:
    """Open a directory beneath another, one step at a time: a link on the way is refused."""
    fd = os.dup(root)
    try:
        for step in place.split("/"):
            if make:
                _make(fd, step)
            inner = os.open(step, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _make(fd: int, name: str) -> None:
    """Make a directory unless it is there; it stays when a power cut follows."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=fd)
        sync_names(fd)


def sync_names(fd: int) -> None:
    """Make the names in a directory outlast a power cut, on a file system that can do so."""
    try:
        os.fsync(fd)
    except OSError as failure:
        # fsync(2): EINVAL where there is nothing of the kind for a directory; network file systems say the others.
        if failure.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF):
            raise

"""A file that takes the place of another whole or not at all.

The content is written to a file without a name (O_TMPFILE), so that a worker killed while it writes leaves nothing
behind; killed in the instant between naming the file and renaming it, it leaves a dot-file. Where the file system has
no such files the dot-name is there from the start.
"""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

CHUNK_BYTES: Final = 1 << 20
_MODE: Final = 0o644
_FLAGS: Final = os.O_WRONLY | os.O_CLOEXEC
# open(2): file systems without it, and kernels that do not know the flag.
_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR)

Check = Callable[[], None]


def replace(directory: int, name: str, body: bytes, *, durable: bool, check: Check) -> None:
    """Make `body` the content of `name`, mode 0644 less the umask; a link of that name is replaced, not followed.

    `check` is asked before each chunk; what it raises ends the write with nothing changed.

    Raises:
        OSError: as open(2), write(2) and rename(2); nothing has changed then, unless the last fsync failed.
    """
    with _temporary(directory) as (fd, link):
        _write(fd, body, check)
        if durable:
            os.fsync(fd)
        temporary = link()
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    if durable:
        os.fsync(directory)


@contextmanager
def _temporary(directory: int) -> Iterator[tuple[int, Callable[[], str]]]:
    """Open a file to write to, with what gives its name; the name is gone at the end, whatever happens."""
    name = f".{secrets.token_hex(16)}.gaia"
    fd, named = _open(directory, name)

    def link() -> str:
        if not named:
            # open(2) on O_TMPFILE: this is how a file without a name gets one when /proc is mounted.
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
        return name

    try:
        yield fd, link
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):  # renamed, or never linked
            os.unlink(name, dir_fd=directory)


def _open(directory: int, name: str) -> tuple[int, bool]:
    """Open a new file, and say whether it has the name already."""
    try:
        return os.open(".", _FLAGS | os.O_TMPFILE, _MODE, dir_fd=directory), False
    except OSError as failure:
        if failure.errno not in _NO_TMPFILE:
            raise
    return os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, _MODE, dir_fd=directory), True


def _write(fd: int, body: bytes, check: Check) -> None:
    rest = memoryview(body)
    while rest:
        check()
        rest = rest[os.write(fd, rest[:CHUNK_BYTES]) :]

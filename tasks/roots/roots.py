"""Named directories, and opening files beneath them and nowhere else.

`Roots` owns one open directory per root, opened at its first use: a root that is renamed or replaced afterwards stays
the directory it was. If the worker dies the kernel closes them.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from config import settings
from gaia.errors import FileFailed, FileMissing, GaiaError, NotConfigured, PathDenied
from tasks.roots import openat2, walk

SETTING: Final = "GAIA_FILES__ROOTS"
DEPTH_LIMIT: Final = 255
"""Components of a path. The walk holds one descriptor open for each."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY

OpenBeneath = Callable[[int, str, int], int]
"""Root descriptor, relative path, flags of open(2): an open descriptor. The protocol that both ways of opening keep."""


class Roots:
    """Files are named `root:relative/path`, the root itself `root:`.

    Symbolic links are followed while they are relative and stay beneath the root. What a mount or a hard link puts
    beneath a root counts as beneath it.
    """

    def __init__(self, directories: Mapping[str, Path], *, open_beneath: OpenBeneath | None = None) -> None:
        """Take the directories; `open_beneath` is openat2 if the kernel has it, else the walk."""
        self._directories = dict(directories)
        self._open_beneath = open_beneath or (openat2.open_beneath if openat2.available() else walk.open_beneath)
        self._opened: dict[str, int] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, files: settings.Files) -> "Roots":
        """Make the roots that the settings name."""
        return cls(files.roots)

    def close(self) -> None:
        """Close the roots; to be called when no call runs any more."""
        with self._lock:
            while self._opened:
                os.close(self._opened.popitem()[1])

    @contextmanager
    def reading(self, path: str) -> Iterator[int]:
        """Open a regular file for reading; the descriptor is closed at the end.

        Raises:
            PathDenied, FileMissing, FileFailed, NotConfigured
        """
        # Without O_NONBLOCK a FIFO would hold the thread until someone writes to it.
        fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                raise FileFailed(path, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(mode):
                raise PathDenied(path, "is no regular file")
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """Open a directory; the descriptor is closed at the end.

        Raises:
            PathDenied, FileMissing, FileFailed, NotConfigured
        """
        fd = self._open(path, _DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def parent(self, path: str, *, make: bool = False, durable: bool = False) -> Iterator[tuple[int, str]]:
        """Open the directory that holds a path, and give it with the last name, which is not looked at.

        With `make`, directories that are missing are made, mode 0777 less the umask; with `durable` their entries are
        on the disk before the block starts.

        Raises:
            PathDenied, FileMissing, FileFailed, NotConfigured
        """
        root, parts = split(path)
        if not parts:
            raise PathDenied(path, "names the root itself")
        above, name = parts[:-1], parts[-1]
        with translated(path):
            base = self._root(root, path)
            fd = self._made(base, above, durable=durable) if make else self._beneath(base, above)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def holds(self, path: Path) -> bool:
        """Say whether a real path of the machine lies beneath a root, told by the identity of its directories."""
        roots = set()
        for each in self._directories:
            # A root that cannot be opened holds nothing that a call could reach.
            with suppress(NotConfigured):
                roots.add(_identity(self._root(each, each)))
        if not roots:
            return False
        for above in path.parents:
            with suppress(OSError):
                if _identity(above) in roots:
                    return True
        return False

    def _open(self, path: str, flags: int) -> int:
        root, parts = split(path)
        with translated(path):
            return self._beneath(self._root(root, path), parts, flags)

    def _beneath(self, base: int, parts: list[str], flags: int = _DIRECTORY) -> int:
        return self._open_beneath(base, "/".join(parts) or ".", flags)

    def _made(self, base: int, parts: list[str], *, durable: bool) -> int:
        """Open a directory, made with those above it if missing."""
        known = len(parts)
        while True:
            try:
                fd = self._beneath(base, parts[:known])
                break
            except FileNotFoundError:
                if known == 0:
                    raise
                known -= 1
        for name in parts[known:]:
            fd = _make(fd, name, durable=durable)
        return fd

    def _root(self, root: str, path: str) -> int:
        """Give the descriptor of a root, opened at the first use."""
        with self._lock:
            if root not in self._opened:
                self._opened[root] = self._open_root(root, path)
            return self._opened[root]

    def _open_root(self, root: str, path: str) -> int:
        if not self._directories:
            raise NotConfigured(SETTING, "no file is reachable without it")
        if root not in self._directories:
            raise PathDenied(path, f"there is no root {root!r}")
        try:
            return os.open(self._directories[root], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as failure:
            raise NotConfigured(SETTING, f"root {root!r} is no usable directory ({failure.strerror})") from None


def split(path: str) -> tuple[str, list[str]]:
    """Split `root:relative/path` into the root and the components, none for the root itself.

    Raises:
        PathDenied: if it has not that form, or is too deep, or a component is empty, `.`, `..` or no file name.
    """
    root, colon, rest = path.partition(":")
    if not root or not colon:
        raise PathDenied(path, "is not 'root:relative/path'")
    parts = rest.split("/") if rest else []
    if len(parts) > DEPTH_LIMIT:
        raise PathDenied(path, f"has more than {DEPTH_LIMIT} components")
    for each in parts:
        if each in ("", ".", ".."):
            raise PathDenied(path, f"has the component {each!r}")
    try:
        sound = b"\0" not in os.fsencode(rest)
    except UnicodeEncodeError:
        sound = False
    if not sound:
        raise PathDenied(path, "has a character that no file name has")
    return root, parts


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn an OSError into an error of ours that names the caller's path, never the machine's."""
    try:
        yield
    except OSError as failure:
        raise _ours(path, failure) from None


def _ours(path: str, failure: OSError) -> GaiaError:
    if failure.errno == errno.ENOENT:
        return FileMissing(path)
    if failure.errno == errno.EXDEV:
        return PathDenied(path, "leaves its root")
    if failure.errno == errno.ENXIO:  # open(2) of a socket
        return PathDenied(path, "is no regular file")
    return FileFailed(path, failure.strerror or type(failure).__name__)


def _make(above: int, name: str, *, durable: bool) -> int:
    """Make a directory and open it, not through a link that took its place meanwhile; closes `above`."""
    try:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=above)
        if durable:
            os.fsync(above)
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    finally:
        os.close(above)


def _identity(place: int | Path) -> tuple[int, int]:
    found = os.stat(place)  # noqa: PTH116 - a descriptor has no Path
    return found.st_dev, found.st_ino

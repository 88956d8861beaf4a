"""Named directories, and opening files beneath them and nowhere else.

`Roots` owns one open directory per root, opened at its first use: a root that is renamed or replaced afterwards stays
the directory it was. It owns the descriptors of each root's annex, too. If the worker dies the kernel closes them.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from config import settings
from gaia.errors import DiskFull, FileFailed, FileMissing, GaiaError, InvalidSetting, NotConfigured, PathDenied
from tasks.roots import openat2, walk
from tasks.roots.annex import Annex, is_ours, known_identity
from tasks.roots.usage import Quota

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

    def __init__(
        self,
        directories: Mapping[str, Path],
        *,
        open_beneath: OpenBeneath | None = None,
        quotas: Mapping[str, Quota] | None = None,
        local: Iterable[str] = (),
    ) -> None:
        """Take the directories; `open_beneath` is openat2 if the kernel has it, else the walk.

        Roots in `local` belong to this machine alone.
        """
        self._directories = dict(directories)
        self._quotas = dict(quotas or {})
        self.local: Final = frozenset(local)
        self._open_beneath = open_beneath or (openat2.open_beneath if openat2.available() else walk.open_beneath)
        self._opened: dict[str, int] = {}
        self._annexes: dict[str, Annex] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, files: settings.Files) -> "Roots":
        """Make the roots that the settings name."""
        quotas = {name: Quota(each.size_bytes, each.files) for name, each in files.quotas.items()}
        return cls(files.roots, quotas=quotas, local=files.local)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the roots."""
        return tuple(self._directories)

    def knows(self, path: str) -> bool:
        """Say whether this worker has the root of a path."""
        return path.partition(":")[0] in self._directories

    def quota(self, path: str) -> Quota | None:
        """Give the quota of a path's root, None if it has none."""
        return self._quotas.get(path.partition(":")[0])

    def descriptor(self, path: str) -> int:
        """Give the descriptor of a path's root, to be used for `*at` calls alone; it stays open, and `Roots` owns it.

        Raises:
            PathDenied, NotConfigured, InvalidSetting
        """
        return self._root(path.partition(":")[0], path)

    def annex(self, path: str) -> Annex:
        """Give what Gaia keeps in a path's root, made at the first use.

        Raises:
            PathDenied, FileFailed, DiskFull, NotConfigured, InvalidSetting
        """
        root = path.partition(":")[0]
        base = self._root(root, path)
        with self._lock:
            found = self._annexes.get(root)
            if found is None:
                with translated(path):
                    found = self._annexes[root] = Annex(base)
            return found

    def identity(self, root: str) -> str:
        """Give the identity of a root, made if it has none; "" for one that has none and cannot be written.

        Raises:
            NotConfigured, InvalidSetting, PathDenied
        """
        base = self._root(root, root)
        try:
            return self.annex(f"{root}:").identity()
        except (OSError, GaiaError):
            try:
                return known_identity(base)
            except OSError:
                return ""

    def close(self) -> None:
        """Close the roots; to be called when no call runs any more."""
        with self._lock:
            while self._annexes:
                self._annexes.popitem()[1].close()
            while self._opened:
                os.close(self._opened.popitem()[1])

    @contextmanager
    def reading(self, path: str) -> Iterator[int]:
        """Open a regular file for reading; the descriptor is closed at the end.

        Raises:
            PathDenied, FileMissing, FileFailed, NotConfigured, InvalidSetting
        """
        fd = self.open_to_read(path)
        try:
            yield fd
        finally:
            os.close(fd)

    def open_to_read(self, path: str) -> int:
        """Open a regular file for reading; the descriptor is the caller's.

        Raises:
            PathDenied, FileMissing, FileFailed, NotConfigured, InvalidSetting
        """
        # Without O_NONBLOCK a FIFO would hold the thread until someone writes to it.
        fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return fd
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise FileFailed(path, os.strerror(errno.EISDIR))
        raise PathDenied(path, "is no regular file")

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """Open a directory; the descriptor is closed at the end.

        Raises:
            PathDenied, FileMissing, FileFailed, NotConfigured, InvalidSetting
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
            PathDenied, FileMissing, FileFailed, NotConfigured, InvalidSetting
        """
        root, parts = split(path)
        if not parts:
            raise PathDenied(path, "names the root itself")
        above, name = parts[:-1], parts[-1]
        with translated(path):
            base = self._root(root, path)
            fd = self.make_beneath(base, above, durable=durable) if make else self._beneath(base, above)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def holds(self, path: Path) -> bool:
        """Say whether a real path of the machine lies beneath a root, told by the identity of its directories."""
        roots = set()
        for each in self._directories:
            # A root that cannot be opened holds nothing that a call could reach.
            with suppress(InvalidSetting):
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
        base = self._root(root, path)
        # No context manager: it would be a third of what a small read costs.
        try:
            return self._open_beneath(base, "/".join(parts) or ".", flags)
        except OSError as failure:
            raise ours(path, failure) from None

    def _beneath(self, base: int, parts: list[str], flags: int = _DIRECTORY) -> int:
        return self._open_beneath(base, "/".join(parts) or ".", flags)

    def make_beneath(self, base: int, parts: list[str], *, durable: bool) -> int:
        """Open a directory beneath another, made with those above it if missing; the descriptor is the caller's.

        Raises:
            OSError: as open(2) and mkdir(2), EXDEV if it leaves the base.
        """
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
        found = self._opened.get(root)
        if found is not None:
            return found
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
            raise InvalidSetting(SETTING, f"names no usable directory as root {root!r}: {failure.strerror}") from None


def split(path: str) -> tuple[str, list[str]]:
    """Split `root:relative/path` into the root and the components, none for the root itself.

    Raises:
        PathDenied: if it has not that form, or is too deep, or a component is empty, `.`, `..` or no file name, or it
            is what Gaia keeps in the root.
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
    # At any depth, as one root may lie in another, and in any case, as there are file systems that fold it.
    if ".gaia" in rest.casefold() and any(is_ours(each.casefold()) for each in parts):
        raise PathDenied(path, "is what Gaia keeps in a root")
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
        raise ours(path, failure) from None


def ours(path: str, failure: OSError) -> GaiaError:
    """Give the error of ours for one of the operating system; it names the caller's path, never the machine's."""
    if failure.errno == errno.ENOENT:
        return FileMissing(path)
    if failure.errno == errno.EXDEV:
        return PathDenied(path, "leaves its root")
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(path, os.strerror(failure.errno))
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

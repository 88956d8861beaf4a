"""Empty directories for programs: made ahead of none, and used again if a program left its own as it was.

To make and remove one takes milliseconds on a disk's file system, more than the start of a program.
"""

import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from gaia.errors import StartFailed
from tasks.process.launcher import trees

IDLE: Final = 200
"""Directories kept for later."""


class Home(NamedTuple):
    """A directory, and the device and inode by which it is known: a program can put another in its place."""

    path: str
    identity: tuple[int, int]


class Homes:
    """The directories of one worker. Thread-safe; whoever sees the worker out removes those that are left."""

    def __init__(self) -> None:
        """Make none yet."""
        self._idle: list[Home] = []
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, program: str, base: Path) -> Iterator[str]:
        """Lend an empty directory beneath `base`.

        Raises:
            StartFailed: if none can be made.
        """
        home = self._taken(base)
        if home is None:
            try:
                home = _made(base)
            except OSError as failure:
                raise StartFailed(program, f"no temporary directory: {failure.strerror}") from None
        try:
            yield home.path
        finally:
            self._give_back(home)

    def _taken(self, base: Path) -> Home | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                home = self._idle.pop()
            if home.path.startswith(f"{base}/") and _is_fresh(home):
                return home
            trees.remove(home.path)

    def _give_back(self, home: Home) -> None:
        if _is_fresh(home):
            with self._lock:
                if len(self._idle) < IDLE:
                    self._idle.append(home)
                    return
        trees.remove(home.path)


def _made(base: Path) -> Home:
    path = tempfile.mkdtemp(prefix="run-", dir=base)
    found = os.lstat(path)
    return Home(path, (found.st_dev, found.st_ino))


def _is_fresh(home: Home) -> bool:
    """Say whether it is that directory still, empty, and its owner's alone."""
    try:
        found = os.lstat(home.path)
        same = (found.st_dev, found.st_ino) == home.identity and stat.S_IMODE(found.st_mode) == stat.S_IRWXU
        return same and not os.listdir(home.path)  # noqa: PTH208 - half the time
    except OSError:
        return False

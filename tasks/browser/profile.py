"""The directory a browser may write to: its profile, its home, its temporary files; removed with the browser.

A `Profile` holds a lock on its directory as long as the worker lives, so the next one can tell what a killed worker
left behind and remove it.
"""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "gaia-browser-"
SETTLED_S: Final = 60.0
"""A younger directory may belong to a worker that is just about to lock it."""
REMOVE_S: Final = 5.0


class Profile:
    """A fresh directory of mode 0700."""

    def __init__(self, owner: tuple[int, int] | None) -> None:
        """Make the directory and give it to that user and group id, to our own by default."""
        sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        if owner is not None:
            os.chown(self.path, *owner)
        self._lock = _locked(self.path)

    def remove(self) -> None:
        """Remove the directory; processes on their way out may still write to it for a moment."""
        ends_at = time.monotonic() + REMOVE_S
        while self.path.exists() and time.monotonic() < ends_at:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(parent: Path) -> None:
    """Remove the profiles of workers that died."""
    for each in parent.glob(PREFIX + "*"):
        with suppress(OSError):
            if time.time() - each.lstat().st_mtime < SETTLED_S:
                continue
            lock = _locked(each)
            if lock is not None:
                shutil.rmtree(each, ignore_errors=True)
                os.close(lock)


def _locked(path: Path) -> int | None:
    """Lock a directory; None if another process has it."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number

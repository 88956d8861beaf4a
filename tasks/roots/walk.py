"""Opening beneath a directory component by component, where the kernel has no openat2.

No component is opened through a symbolic link: each link is read and its target walked in its place. A `..` inside a
target goes back to the directory that the walk came from, which is held open, so a rename cannot move it outside.
"""

import errno
import os
from typing import Final

_LINKS: Final = 40
"""MAXSYMLINKS of linux/namei.h."""
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(root: int, path: str, flags: int) -> int:
    """Open an existing `path`; symbolic links are followed as long as they stay beneath `root`.

    With O_PATH there must be O_DIRECTORY or O_NOFOLLOW too: O_PATH alone would open a link itself.

    Raises:
        OSError: EXDEV if the path leaves the root, else as open(2).
    """
    walk = _Walk(root)
    try:
        return walk.open(path, flags)
    finally:
        walk.close()


class _Walk:
    def __init__(self, root: int) -> None:
        self._trail = [root]
        self._links = 0

    def close(self) -> None:
        for each in self._trail[1:]:
            os.close(each)

    def open(self, path: str, flags: int) -> int:
        todo = _parts(path)
        while todo:
            name = todo.pop()
            if name == "..":
                self._back()
                continue
            last = not todo
            try:
                found = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC if last else _STEP, dir_fd=self._trail[-1])
            except OSError as failure:
                if last and flags & os.O_NOFOLLOW:
                    raise
                todo += self._target(name, failure)
                continue
            if last:
                return found
            self._trail.append(found)
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=self._trail[-1])

    def _back(self) -> None:
        if len(self._trail) == 1:
            raise _error(errno.EXDEV)
        os.close(self._trail.pop())

    def _target(self, name: str, failure: OSError) -> list[str]:
        """Give what to walk in place of a link; the failure stands if the name is none."""
        if failure.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise failure
        try:
            target = os.readlink(name, dir_fd=self._trail[-1])
        except OSError:
            raise failure from None
        self._links += 1
        if self._links > _LINKS:
            raise _error(errno.ELOOP)
        if target.startswith("/"):
            raise _error(errno.EXDEV)
        return _parts(target)


def _parts(path: str) -> list[str]:
    """Split a path into what is left to walk, the next part last."""
    return [each for each in reversed(path.split("/")) if each not in ("", ".")]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))

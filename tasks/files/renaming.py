"""Renaming without replacing: renameat2(2) with RENAME_NOREPLACE, Linux 3.15, glibc 2.28."""

import ctypes
import os
from typing import Final

_NOREPLACE: Final = 1
"""RENAME_NOREPLACE of linux/fs.h."""

_libc = ctypes.CDLL(None, use_errno=True)


def rename_unless_exists(above: int, name: str, directory: int, target: str) -> None:
    """Rename in one step, unless the target exists.

    Raises:
        FileExistsError: if it does.
        OSError: as renameat2(2); EINVAL where the file system cannot do it.
    """
    done = _libc.renameat2(above, os.fsencode(name), directory, os.fsencode(target), ctypes.c_uint(_NOREPLACE))
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

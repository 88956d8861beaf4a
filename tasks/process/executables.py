"""Which programs may run."""

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from gaia.errors import ExecutableDenied
from tasks.roots.roots import Roots

SETTING: Final = "GAIA_PROCESS__EXECUTABLES"
_GLOB: Final = frozenset("*?[")


class Executables:
    """An allow list of absolute paths and globs, compared with the path that a name resolves to.

    The file that is started is what the list judges. Of a script that is the script; the interpreter in its `#!` line
    need not be listed. Allowing an interpreter or a shell itself allows whatever a caller writes in its arguments.
    """

    def __init__(self, allowed: Sequence[str], *, roots: Roots) -> None:
        """Take the entries; in a glob `*` matches `/` too, as in fnmatch."""
        self._allowed = tuple(allowed)
        self._roots = roots

    def admit(self, path: str) -> str:
        """Give the resolved path to start: a link that is turned afterwards changes nothing.

        Raises:
            ExecutableDenied: also for a file beneath a files root, since a caller could have written it.
        """
        found = os.path.realpath(path)
        if not any(_matches(found, each) for each in self._allowed):
            raise ExecutableDenied(path, f"is not on the allow list ({SETTING})")
        if self._roots.holds(Path(found)):
            raise ExecutableDenied(path, "lies beneath a files root")
        return found


def is_glob(entry: str) -> bool:
    """Say whether an entry stands for whatever matches it."""
    return bool(_GLOB & set(entry))


def _matches(path: str, entry: str) -> bool:
    """Compare with an entry; its links are resolved at each call, up to the first directory that is a pattern."""
    plain = entry
    while is_glob(plain):
        plain = os.path.dirname(plain)  # noqa: PTH120 - Path would change `//` and `.`
    resolved = os.path.realpath(plain).rstrip("/") if plain else ""
    pattern = entry[len(plain.rstrip("/")) :]
    if not pattern:
        return path == resolved
    return path.startswith(resolved) and fnmatchcase(path[len(resolved) :], pattern)

"""What lies beneath the roots: one entry, a directory's entries, and everything beneath it, a page at a time.

Names come in order of their code points, so a page begins after the last name of the one before, whatever has changed
meanwhile. What Gaia keeps in a root is not shown, nor a name that is no UTF-8: no path could name it.
"""

import heapq
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from gaia.contracts import files
from gaia.contracts.base import is_unicode
from gaia.contracts.files import Kind
from gaia.errors import InvalidCall
from tasks.files import globs
from tasks.roots.annex import is_ours
from tasks.roots.descent import Descent
from tasks.roots.roots import Roots, split, translated
from tasks.scope import Scope

CHECK_EVERY: Final = 1000
"""Entries between two looks at the call's deadline and cancellation."""

PAGE_CHARACTERS: Final = 8 * 1024 * 1024
"""Paths of one page of a walk have so many together, whatever its limit."""

WINDOW: Final = 100_000
"""Names of one directory that a walk keeps; a directory of more than twice as many is read more than once."""

_Name = tuple[str, bool]
"""The name of an entry, and whether it is a directory."""


class Lister:
    """Lists. It owns nothing."""

    def __init__(self, roots: Roots) -> None:
        """Take the roots."""
        self._roots = roots

    def stat(self, call: files.Stat, scope: Scope) -> files.Entry:
        """Describe what is at a path."""
        scope.check()
        if not split(call.path)[1]:
            with self._roots.directory(call.path) as fd, translated(call.path):
                return entry(call.path, os.fstat(fd))
        with self._roots.parent(call.path) as (directory, name), translated(call.path):
            return entry(call.path, os.stat(name, dir_fd=directory, follow_symlinks=False))

    def list(self, call: files.List, scope: Scope) -> files.Listing:
        """Give a page of a directory's entries. The names of the whole directory are read for each."""
        glob = globs.of_name(call.pattern)
        after = call.cursor
        with self._roots.directory(call.path) as fd, translated(call.path):
            with os.scandir(fd) as entries:
                # One more than a page has tells whether there is another.
                names = heapq.nsmallest(
                    call.limit + 1,
                    (
                        each.name
                        for each in _watched(entries, scope)
                        if not is_ours(each.name)
                        and is_unicode(each.name)
                        and (after is None or each.name > after)
                        and (glob is None or glob.match(each.name))
                    ),
                )
            joint = "" if call.path.endswith(":") else "/"
            found = []
            for name in names[: call.limit]:
                with suppress(FileNotFoundError):  # it has gone meanwhile
                    found.append(entry(f"{call.path}{joint}{name}", os.stat(name, dir_fd=fd, follow_symlinks=False)))
        more = len(names) > call.limit
        return files.Listing(entries=tuple(found), cursor=names[call.limit - 1] if more else None)

    def walk(self, call: files.Walk, scope: Scope) -> files.Walked:
        """Give a page of the paths beneath a directory, depth first."""
        above = call.path if call.path.endswith(":") else call.path + "/"
        found: list[str] = []
        size = 0
        walk = Walk(call, _resume(call), scope)
        with self._roots.directory(call.path) as fd, translated(call.path):
            for each in walk.beneath(fd):
                if not (each.isascii() or is_unicode(each)):
                    continue
                size += len(each)
                if len(found) == call.limit or (size > PAGE_CHARACTERS and found):
                    return files.Walked(paths=tuple(found), cursor=found[-1][len(above) :])
                found.append(above + each)
        return files.Walked(paths=tuple(found))


def entry(path: str, found: os.stat_result) -> files.Entry:
    """Make an entry of what the operating system says."""
    return files.Entry(
        path=path,
        kind=kind_of(found.st_mode),
        size_bytes=found.st_size,
        modified_at_s=found.st_mtime,
        mode=stat.S_IMODE(found.st_mode),
    )


def kind_of(mode: int) -> Kind:
    """Name the kind of a file."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def _watched(entries: "Iterator[os.DirEntry[str]]", scope: Scope) -> "Iterator[os.DirEntry[str]]":
    for index, each in enumerate(entries):
        if index % CHECK_EVERY == 0:
            scope.check()
        yield each


def _resume(call: files.Walk) -> list[str]:
    """Split a cursor, the path that was given last, into its names."""
    if call.cursor is None:
        return []
    names = call.cursor.split("/")
    if any(each in ("", ".", "..") for each in names):
        raise InvalidCall(call.OPERATION, "cursor", "must be what the page before gave")
    return names


@dataclass
class _Level:
    """A directory under way: its path (ending in a slash), and what was read of it and is left, the next last.

    `cut` is the last name that was read, None if those are all.
    """

    above: str
    left: list[_Name]
    cut: str | None
    after: list[str]


class Walk:
    """A walk with a stack of its own: a deep tree is no deep recursion, and a wide one is read a part at a time."""

    def __init__(self, call: files.Walk, after: list[str], scope: Scope) -> None:
        """Begin behind the path whose names are `after`."""
        self._glob: re.Pattern[str] | None = globs.of_path(call.pattern)
        self._files = call.kind != "directory"
        self._directories = call.kind != "file"
        self._depth = call.max_depth
        self._after = after
        self._scope = scope

    def beneath(self, fd: int) -> Iterator[str]:
        """Give the relative paths of what is beneath a directory."""
        with Descent(fd) as descent:
            levels = [self._level(fd, "", self._after)]
            while levels:
                level, inner = levels[-1], None
                for each in self._rest_of(level, descent):
                    if isinstance(each, str):
                        yield each
                    else:
                        inner = each
                if inner is not None:
                    levels.append(inner)
                elif level.cut is not None:
                    level.left, level.cut = self._names(descent.fd, beyond=level.cut)
                else:
                    levels.pop()
                    if levels:
                        descent.up()

    def _rest_of(self, level: _Level, descent: Descent) -> "Iterator[str | _Level]":
        """Give the paths of a level until one is a directory to go into, which is given last."""
        glob, above, left = self._glob, level.above, level.left
        while left:
            name, is_directory = left.pop()
            if not is_directory:
                if self._files and (glob is None or glob.match(above + name)):
                    yield above + name
                continue
            resumed = bool(level.after) and name == level.after[0]
            path = above + name
            if self._directories and not resumed and (glob is None or glob.match(path)):
                yield path
            if path.count("/") + 1 < self._depth:
                try:
                    descent.down(name)
                except (FileNotFoundError, NotADirectoryError, PermissionError):
                    continue  # it has gone meanwhile, was swapped for a link, or may not be read
                yield self._level(descent.fd, path + "/", level.after[1:] if resumed else [])
                return

    def _level(self, fd: int, above: str, after: list[str]) -> _Level:
        """Read a directory; of what was given before, nothing but the directory that the last path lies in is left."""
        left, cut = self._names(fd, resumed=after[0]) if after else self._names(fd)
        return _Level(above, left, cut, after)

    def _names(self, fd: int, *, beyond: str = "", resumed: str | None = None) -> tuple[list[_Name], str | None]:
        """Give the first names of a directory behind one, the next last, and the last of them if there are more.

        The resumed path itself comes again if it is a directory: what is beneath it is behind it.
        """
        found: list[_Name] = []
        cut: str | None = None
        with os.scandir(fd) as entries:
            while part := list(islice(entries, CHECK_EVERY)):
                self._scope.check()
                more = [
                    (each.name, each.is_dir(follow_symlinks=False))
                    for each in part
                    if not each.name.endswith(".gaia") or not is_ours(each.name)
                ]
                if beyond:
                    more = [each for each in more if each[0] > beyond]
                if resumed is not None:
                    more = [each for each in more if each[0] > resumed or each == (resumed, True)]
                if cut is not None:
                    more = [each for each in more if each[0] <= cut]
                found += more
                if len(found) >= 2 * WINDOW:
                    found.sort()
                    del found[WINDOW:]
                    cut = found[-1][0]
        found.sort(reverse=True)
        return found, cut

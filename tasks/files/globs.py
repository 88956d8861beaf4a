"""Globs as regular expressions.

    *       any part of a name         ?       any character of a name
    [a-z]   one of these characters    [!a-z]  none of these
    **      any number of directories, as a whole component; at the end, everything beneath

A name that begins with a dot is matched like any other.
"""

import re
from fnmatch import translate
from functools import lru_cache
from typing import Final

KEPT: Final = 256


@lru_cache(KEPT)
def of_name(pattern: str) -> re.Pattern[str] | None:
    """Compile the glob of one name; None matches all."""
    return None if pattern == "*" else re.compile(translate(pattern))


@lru_cache(KEPT)
def of_path(pattern: str) -> re.Pattern[str] | None:
    """Compile the glob of a relative path; None matches all."""
    if pattern == "**":
        return None
    parts = pattern.split("/")
    built = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            built.append(".*" if last else "(?:[^/]+/)*")
        else:
            built.append(_component(part) + ("" if last else "/"))
    return re.compile("(?s:" + "".join(built) + r")\Z")


def _component(part: str) -> str:
    """Give the expression of one component; `*` and `?` stay within it."""
    built, rest = "", part
    while rest:
        head, rest = rest[0], rest[1:]
        if head == "*":
            built += "" if built.endswith("[^/]*") else "[^/]*"
        elif head == "?":
            built += "[^/]"
        elif head == "[" and (found := re.match(r"(!?)(\]?[^\]]*)\]", rest)):
            inner = found[2].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^").replace("&", r"\&")
            built += f"(?!/)[{'^' if found[1] else ''}{inner.replace('|', chr(92) + '|').replace('~', chr(92) + '~')}]"
            rest = rest[found.end() :]
        else:
            built += re.escape(head)
    return built

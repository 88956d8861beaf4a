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

_SET: Final = re.compile(r"(!?+)(\][^\]]*|[^\]]+)\]")
_SPECIAL: Final = re.compile(r"[\\\[\]^&|~]")


@lru_cache(KEPT)
def of_name(pattern: str) -> re.Pattern[str] | None:
    """Compile the glob of one name; None matches all."""
    return None if pattern == "*" else re.compile(translate(pattern))


@lru_cache(KEPT)
def of_path(pattern: str) -> re.Pattern[str] | None:
    """Compile the glob of a relative path; None matches all.

    What lies between two stars is taken where it comes first and never looked for again (an atomic group): if the
    rest does not fit behind that, it fits behind no later one. So no power of the stars is in its time.
    """
    if pattern == "**":
        return None
    groups: list[list[str]] = [[]]
    for part in pattern.split("/"):
        if part == "**":
            groups.append([])
        else:
            groups[-1].append(_component(part))
    first, *middle, last = (["/".join(each) for each in groups]) if len(groups) > 1 else ["", "/".join(groups[0])]
    built = f"{first}/" if first else ""
    built += "".join(f"(?>(?:[^/]+/)*?{each}/)" for each in middle if each)
    if len(groups) > 1:
        built += f"(?:[^/]+/)*{last}" if last else ".*"
    else:
        built += last
    return re.compile(f"(?s:{built})\\Z")


def _component(part: str) -> str:
    """Give the expression of one component; `*` and `?` stay within it."""
    pieces = [""]
    rest = part
    while rest:
        head, rest = rest[0], rest[1:]
        if head == "*":
            pieces.append("")
        elif head == "?":
            pieces[-1] += "[^/]"
        elif head == "[" and (found := _SET.match(rest)):
            pieces[-1] += f"(?!/){_set(found[2], negated=bool(found[1]))}"
            rest = rest[found.end() :]
        else:
            pieces[-1] += re.escape(head)
    first, *middle = pieces
    if not middle:
        return first
    last = middle.pop()
    return first + "".join(f"(?>[^/]*?{each})" for each in middle if each) + "[^/]*" + last


def _set(characters: str, *, negated: bool) -> str:
    """Give the expression of a set; one with a range that runs backwards is of no character, as in fnmatch."""
    built = f"[{'^' if negated else ''}{_SPECIAL.sub(_escaped, characters)}]"
    try:
        re.compile(built)
    except re.error:
        return "." if negated else "(?!)"
    return built


def _escaped(found: re.Match[str]) -> str:
    return "\\" + found[0]

"""Strikes secrets from texts: those that are known, and whatever looks like one."""

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus, unquote

MASK: Final = "***"

SHORTEST_SECRET: Final = 4
"""Striking shorter strings from a text would garble it and hide nothing."""

LONGEST_NAME: Final = 64
"""Of a name that is remembered; the same few come again and again."""

_SENSITIVE = re.compile(
    r"auth|cookie|token|secret|pwd|pass(w|phrase|code|key|$|[-_.])|(api|access|account|shared|master|signing)[-_]?key"
    r"|private|credential|assertion|sess(ion|id)|signature|(^|[-_.])(sig|sid|key|jwt|otp|pin)($|[-_.])",
    re.IGNORECASE,
)

# What betrays a secret in a text of unknown origin. Repetitions before a decision are bounded, so that a long text
# takes time in proportion to its length.
_USER_INFO = re.compile(r"(?<=://)[^/?#\s\"'<>]+@")
_PARAMETER = re.compile(r"(?P<name>[?&;#][\w.%+\[\]-]{1,100}=)(?P<value>[^?&;#\s\"'<>)}]*)")
_SCHEME = re.compile(
    # A credential holds a digit, a sign or mixed case, or else "basic information" would be one.
    r"\b(?P<name>(?i:bearer|basic|digest|negotiate)\s{1,8})(?=[\w.~+/-]{0,60}?(?:\d|[+=~]|[a-z][A-Z]))"
    r"(?P<value>[\w.~+/=-]{8,})"
)
_COOKIE = re.compile(r"(?P<name>cookie:\s{0,8})(?P<value>[^\r\n\"'}]+)", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?P<name>(?:authorization|cookie|pass(?:w(?:or)?d|phrase)|pwd|secret|token|(?:api|access)[-_]?key)[\w-]{0,40}"
    r"""\\{0,8}["']?\s{0,8}[:=]\s{0,8})"""
    r"""(?P<value>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\\{1,8}["'][^"'\\]*"""
    r"""|(?:(?:bearer|basic|digest|negotiate)\s{1,8})?[^\s,;&"'})]+)""",
    re.IGNORECASE | re.DOTALL,
)
_PATTERNS: Final = (_SCHEME, _COOKIE, _ASSIGNED)

_WORDS = re.compile(r"bearer|basic|digest|negotiate|authoriz|cookie|pass|pwd|secret|token|key", re.IGNORECASE)
"""None of these patterns matches where none of these words stands, and most texts hold none."""

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
"""What every encoding leaves as it is."""

_URL_SAFE: Final = ("", "/", "!#$%&'()*+,/:;=?@[]~")
"""What quoting leaves alone: in a parameter, in a path, in a whole URL."""


def sounds_secret(name: str) -> bool:
    """Say whether a header, parameter, option or variable of that name is treated as secret."""
    return _known_to_be_secret(name) if len(name) <= LONGEST_NAME else _SENSITIVE.search(name) is not None


@lru_cache(512)
def _known_to_be_secret(name: str) -> bool:
    return _SENSITIVE.search(name) is not None


class Scrubber:
    """Strikes the secrets of one call, and whatever looks like a secret, from a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Spell the known secrets, the longest first, so that none leaves the rest of a longer one behind."""
        self._known = sorted({form for each in secrets for form in _forms(each)}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Give the text without secrets."""
        for each in self._known:
            text = text.replace(each, MASK)
        if "@" in text:
            text = _USER_INFO.sub(MASK + "@", text)
        if "=" in text:
            text = _PARAMETER.sub(hide_parameter, text)
        for pattern in _PATTERNS if _WORDS.search(text) else ():
            text = pattern.sub(rf"\g<name>{MASK}", text)
        return text


scrub = Scrubber()
"""Strikes what looks like a secret, for texts that belong to no call."""


def hide_parameter(found: re.Match[str]) -> str:
    """Replace a match of `name`, as `?token=`, and `value` if the name sounds secret or a URL in it has user-info."""
    hidden = names_secret(found) or _USER_INFO.search(unquote(found["value"]))
    return found["name"] + MASK if hidden else found[0]


def names_secret(found: re.Match[str]) -> bool:
    """Say whether the `name` of a match, as `?token=`, sounds secret."""
    return sounds_secret(unquote(found["name"][1:-1]))


def suspects(text: str) -> Iterator[str]:
    """Give what looks like a secret in a text, URLs aside."""
    for pattern in _PATTERNS:
        for found in pattern.finditer(text):
            yield found["value"].strip("\"'")


def _forms(text: str) -> Iterator[str]:
    """Give the spellings under which a secret can turn up in a message."""
    yield text
    if _PLAIN.fullmatch(text):
        return
    for safe in _URL_SAFE:
        quoted = quote(text, safe=safe, errors="surrogatepass")
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    yield quote_plus(text, errors="surrogatepass")
    yield repr(text)[1:-1]
    yield ascii(text)[1:-1]
    yield repr(text.encode(errors="surrogatepass"))[2:-1]
    # As in a repr that holds quotes of both kinds.
    yield text.replace("\\", r"\\").replace("'", r"\'")
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]

"""The one redaction: it serves repr, `argsrepr`, logs, errors, events and dead letters.

A contract marks its secret fields (`gaia.contracts.base.secret`); here stands what each mark hides:

    all     the whole value
    values  every value of a mapping; its keys show (environments, cookies)
    named   the values of a mapping whose key sounds secret (headers, query parameters)
    url     user-info, and query parameters whose name sounds secret
    argv    the values of options whose name sounds secret
    body    the content; its size shows

A mark knows which strings are secret, so a `Scrubber` (`gaia.scrubbing`) can strike exactly those from any text.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Final, get_args
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

from gaia.codec import Artifact, dataclass_of, hints_of
from gaia.scrubbing import (
    MASK,
    SHORTEST_SECRET,
    Scrubber,
    hide_parameter,
    names_secret,
    scrub,
    sounds_secret,
    suspects,
)

__all__ = [
    "MARK",
    "MASK",
    "Scrubber",
    "redact",
    "scrub",
    "secrets_of",
    "secrets_of_url",
    "show",
    "show_json",
    "sounds_secret",
    "visible",
    "visible_json",
]

MARK: Final = "gaia.secret"

SHOWN_CHARACTERS: Final = 200
"""Longer strings are cut in a repr: it is for people and log lines."""

SHOWN_ITEMS: Final = SHOWN_CHARACTERS // 2
"""Of a list; more would be cut off in any case, as each takes two characters at least."""

SHORTEST_PART: Final = 8
"""A shorter part of a secret is not struck for itself: `path` of `id=<session>; path=/`."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>]+")
_OPEN_URL = re.compile(r"[a-z]{1,16}://[A-Za-z0-9.-]+(:[1-9][0-9]{0,3}|:[1-5][0-9]{4})?(/[A-Za-z0-9._~/-]*)?")
"""A URL that has nothing but a host and a path of plain letters: nothing of it can be secret."""
_PARAMETER = re.compile(r"(?P<name>[?&;#][^?&;#=]*=)(?P<value>[^&;#]*)")
_OPTION = re.compile(r"(?P<name>--?[\w.-]+|\w+)=(?P<value>.*)", re.DOTALL)


def show(subject: object) -> str:
    """Give the redacted repr of a call or a result, fields at their defaults left out."""
    shown = ", ".join(f"{name}={_brief(value)}" for name, value in visible(subject).items())
    return f"{type(subject).__qualname__}({shown})"


def visible(subject: object) -> dict[str, object]:
    """Give the fields of a call or result that differ from their defaults, each redacted by its mark."""
    shown = {}
    for each in fields(subject):  # type: ignore[arg-type]  # contracts are dataclasses
        value = getattr(subject, each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if value != default:
            shown[each.name] = redact(value, each.metadata.get(MARK))
    return shown


def visible_json(contract: Any, given: Mapping[str, object]) -> dict[str, object]:
    """Redact the JSON fields of a message by the marks of its contract; what the contract does not know is masked."""
    return _visible_fields(contract, given, None)


def _visible_fields(contract: Any, given: Mapping[str, object], most: int | None) -> dict[str, object]:
    """Do so; of a list of contracts, for its first `most` items only."""
    plan = _plan(contract)
    shown = {}
    for name, value in given.items():
        kind, inner = plan.get(name, ("all", None))
        shown[name] = redact(value, kind) if inner is None else _visible_within(inner, value, most)
    return shown


def show_json(contract: type[Any], given: Mapping[str, object]) -> str:
    """Give the redacted text of a message's JSON fields, as `kwargsrepr` holds it."""
    shown = ", ".join(
        f"{name!r}: {_brief(value)}" for name, value in _visible_fields(contract, given, SHOWN_ITEMS).items()
    )
    return "{" + shown + "}"


def redact(value: object, kind: str | None) -> object:
    """Give what may be shown of a value under a mark."""
    if value is None or kind is None:
        return value
    rule = _RULES[kind]
    return rule(value)


def secrets_of(contract: type[Any], given: Mapping[str, object] | object) -> set[str]:
    """Collect the secret strings of a call, given as the dataclass or as its JSON fields."""
    return {each for each in _secrets_within(contract, given) if len(each) >= SHORTEST_SECRET}


def secrets_of_url(url: str) -> set[str]:
    """Collect the secret strings of a URL."""
    return {each for each in _url_secrets(url) if len(each) >= SHORTEST_SECRET}


@cache
def _plan(contract: Any) -> dict[str, tuple[str | None, type[Any] | None]]:
    """Give each field's mark, and the contract that lies within it if one does."""
    hints = hints_of(contract)
    made: Any = dataclass_of(contract)
    return {each.name: (each.metadata.get(MARK), _contract_in(hints[each.name])) for each in fields(made)}


def _contract_in(hint: Any) -> type[Any] | None:
    """Find the dataclass of `X`, `X | None` or `tuple[X, ...]`; a reference to a body is no contract."""
    if hint is Artifact or (isinstance(hint, type) and issubclass(hint, BaseException)):
        return None
    if dataclass_of(hint) is not None:
        return hint  # type: ignore[no-any-return]  # a class, or a generic one with its arguments
    return next((found for each in get_args(hint) if (found := _contract_in(each)) is not None), None)


def _visible_within(contract: type[Any], value: object, most: int | None) -> object:
    if isinstance(value, Mapping):
        return _visible_fields(contract, value, most)
    if isinstance(value, list):
        return [_visible_within(contract, each, most) for each in value[:most]]
    return value if value is None else MASK


def _secrets_within(contract: Any, given: object) -> Iterator[str]:
    for name, (kind, inner) in _plan(contract).items():
        value = given.get(name) if isinstance(given, Mapping) else getattr(given, name)
        if kind is not None and value is not None:
            yield from _FINDERS[kind](value)
        elif inner is not None:
            for each in value if isinstance(value, list | tuple) else (value,):
                if isinstance(each, (Mapping, dataclass_of(inner) or ())):
                    yield from _secrets_within(inner, each)


def _brief(value: object) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, _Shown):
        return value.text
    try:
        text = _begin(value) if isinstance(value, list | tuple) and type(value) in (list, tuple) else repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or an integer of too many digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _begin(items: Sequence[object]) -> str:
    """Give the repr of a list or tuple, or as much of it as is shown: a batch has thousands of items."""
    room, shown = SHOWN_CHARACTERS, []
    for each in items:
        shown.append(repr(each))
        room -= len(shown[-1])
        if room < 0:
            break
    opens, closes = "[]" if isinstance(items, list) else "()"
    lone = "," if len(shown) == 1 and isinstance(items, tuple) else ""
    return f"{opens}{', '.join(shown)}{lone}{closes}"


class _Shown:
    """A remark in place of a value: shown without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _hide_values(value: object) -> object:
    return dict.fromkeys(value, MASK) if isinstance(value, Mapping) else MASK


def _hide_named(value: object) -> object:
    if not isinstance(value, Mapping):
        return MASK
    return {name: MASK if sounds_secret(str(name)) else _hide_within(item) for name, item in value.items()}


def _hide_within(item: object) -> object:
    """Show a text without what looks like a secret in it; nothing of a value that has structure."""
    if isinstance(item, str):
        return scrub(item)
    return MASK if isinstance(item, Mapping | list | tuple) else item


def _hide_url(value: object) -> object:
    if not isinstance(value, str):
        return MASK
    if _OPEN_URL.fullmatch(value):
        return value
    parts = _split(value)
    if parts is None:
        return MASK
    netloc = parts.netloc
    if "@" in netloc:
        netloc = MASK + "@" + netloc.rpartition("@")[2]
    return _PARAMETER.sub(hide_parameter, urlunsplit(parts._replace(netloc=netloc)))


def _split(url: str) -> Any:
    """Split a URL, None if it cannot be told which part of it is which."""
    try:
        parts = urlsplit(url)
        sound = not parts.netloc or (bool(parts.hostname) and parts.port != 0)  # `port` raises if it is no number
    except ValueError:
        return None
    return parts if sound else None


def _hide_argv(value: object) -> object:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return MASK
    hidden = set(_argv_secrets(value))
    return [_hide_argument(str(each), hidden) for each in value]


def _hide_argument(argument: str, hidden: set[str]) -> str:
    if argument in hidden:
        return MASK
    option = _OPTION.fullmatch(argument)
    if option and option["value"] in hidden:
        return f"{option['name']}={MASK}"
    for each in sorted(hidden, key=len, reverse=True):
        if len(each) >= SHORTEST_SECRET:
            argument = argument.replace(each, MASK)
    return scrub(argument)


def _hide_body(value: object) -> object:
    if isinstance(value, bytes):
        return _Shown(f"<{len(value)} bytes>")
    if isinstance(value, str):
        return _Shown(f"<{len(value)} characters>")
    return _Shown(f"<{type(value).__name__}>")


def _leaves(value: object) -> Iterator[str]:
    """Give every string in a JSON value, keys aside; however deep it is."""
    heap = [value]
    while heap:
        each = heap.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            heap.extend(each.values())
        elif isinstance(each, Sequence) and not isinstance(each, bytes):
            heap.extend(each)


def _all_secrets(value: object) -> Iterator[str]:
    yield from _leaves(value)
    if isinstance(value, list | tuple) and len(value) == 2:  # noqa: PLR2004 - a user and a password
        yield from _basic(str(value[0]), str(value[1]))


def _basic(user: str, password: str) -> Iterator[str]:
    """Give what basic authorization makes of a user and a password (RFC 7617), in either usual encoding."""
    for encoding in ("utf-8", "latin-1"):
        yield base64.b64encode(f"{user}:{password}".encode(encoding, "replace")).decode()


def _named_secrets(value: object) -> Iterator[str]:
    heap = [value]
    while heap:
        each = heap.pop()
        if isinstance(each, Mapping):
            for name, item in each.items():
                if sounds_secret(str(name)):
                    for leaf in _leaves(item):
                        yield from _credentials(leaf)
                else:
                    heap.append(item)
        elif isinstance(each, Sequence) and not isinstance(each, str | bytes):
            heap.extend(each)


def _header_secrets(value: object) -> Iterator[str]:
    """Give the values whose name sounds secret, and the secrets in URLs and texts of the others."""
    yield from _named_secrets(value)
    if isinstance(value, Mapping):
        for item in value.values():
            if isinstance(item, str):
                yield from _text_secrets(item)


def _credentials(leaf: str) -> Iterator[str]:
    """Give a secret value, and its parts: of `Bearer abc` the token, of `a=1; b=2` the values."""
    yield leaf
    for word in re.split(r"[\s;,]+", leaf):
        for part in (word, word.partition("=")[2].strip("\"'")):
            if len(part) >= SHORTEST_PART:
                yield part


def _text_secrets(text: str) -> Iterator[str]:
    """Give what looks like a secret in a text."""
    for url in _URL.findall(text):
        yield from _url_secrets(url)
    for each in suspects(text):
        yield from _credentials(each)


def _url_secrets(value: object) -> Iterator[str]:
    if not isinstance(value, str):
        return
    parts = _split(value)
    if parts is None:
        yield value
        return
    user_info, at, _ = parts.netloc.rpartition("@")
    if at:
        user, colon, password = user_info.partition(":")
        yield from (user_info, unquote(user_info), password, unquote(password))
        if not colon:
            yield from (user, unquote(user))
        yield from _basic(unquote(user), unquote(password))
    for found in _PARAMETER.finditer(value):
        if names_secret(found):
            # A parameter of the path ends at the query, one of the query may hold a question mark.
            for each in (found["value"], found["value"].partition("?")[0]):
                yield from (each, unquote(each), unquote_plus(each))
        elif "://" in (inner := unquote(found["value"])) and inner != found["value"]:
            yield from _url_secrets(inner)


def _argv_secrets(value: object) -> Iterator[str]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return
    expecting = False
    for argument in map(str, value):
        option = _OPTION.fullmatch(argument)
        if expecting and not _is_option(argument):
            yield argument
        if option and sounds_secret(option["name"]):
            yield option["value"]
        yield from _text_secrets(argument)
        expecting = argument.startswith("-") and not option and sounds_secret(argument)


def _is_option(argument: str) -> bool:
    """Tell `-x` and `--word` from a secret that begins with a dash."""
    return argument.startswith("--") or (argument.startswith("-") and len(argument) == 2)  # noqa: PLR2004 - `-x`


_RULES: Final[dict[str, Any]] = {
    "all": lambda _: MASK,
    "values": _hide_values,
    "named": _hide_named,
    "url": _hide_url,
    "argv": _hide_argv,
    "body": _hide_body,
}
_FINDERS: Final[dict[str, Any]] = {
    "all": _all_secrets,
    "values": _leaves,
    "named": _header_secrets,
    "url": _url_secrets,
    "argv": _argv_secrets,
    "body": _named_secrets,
}

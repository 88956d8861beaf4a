"""The one redaction: it serves repr, `argsrepr`, logs, errors, events and dead letters.

A contract marks its secret fields (`gaia.contracts.base.secret`); here stands what each mark hides:

    all     the whole value
    values  every value of a mapping; its keys show (environments, cookies)
    named   the values of a mapping whose key sounds secret (headers, query parameters)
    url     user-info, and query parameters whose name sounds secret
    argv    the values of options whose name sounds secret
    body    the content; its size shows

A mark knows which strings are secret, so a `Scrubber` can strike exactly those from any text, wherever a library put
them, besides the patterns that betray a secret of unknown origin.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

MARK: Final = "gaia.secret"
MASK: Final = "***"

SHOWN_CHARACTERS: Final = 200
"""Longer strings are cut in a repr: it is for people and log lines."""

SHORTEST_SECRET: Final = 4
"""Striking shorter strings from a text would garble it and hide nothing."""

_SENSITIVE = re.compile(
    r"auth|cookie|token|secret|passw|pwd|passphrase|api[-_]?key|access[-_]?key|private|credential|session|signature"
    r"|(^|[-_])(sig|key|jwt|otp|pin)($|[-_])",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(?<=://)[^/\s@\"'<>]+@")
_SCHEME = re.compile(r"\b(bearer|basic|digest|negotiate)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"""(["']?[\w-]*(?:authorization|cookie|passw(?:or)?d|secret|token|api[-_]?key)[\w-]*["']?\s*[:=]\s*)"""
    r"""("[^"]*"|'[^']*'|[^\s,;&"'})]+)""",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?P<name>--?[\w-]+|\w+)=(?P<value>.*)", re.DOTALL)


def sounds_secret(name: str) -> bool:
    """Say whether a header, parameter, option or variable of that name is treated as secret."""
    return _SENSITIVE.search(name) is not None


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


def visible_json(contract: type[Any], given: Mapping[str, object]) -> dict[str, object]:
    """Redact the JSON fields of a message by the marks of its contract; what the contract does not know is masked."""
    marks = {each.name: each.metadata.get(MARK) for each in fields(contract)}
    return {name: redact(value, marks[name]) if name in marks else MASK for name, value in given.items()}


def show_json(contract: type[Any], given: Mapping[str, object]) -> str:
    """Give the redacted text of a message's JSON fields, as `kwargsrepr` holds it."""
    shown = ", ".join(f"{name!r}: {_brief(value)}" for name, value in visible_json(contract, given).items())
    return "{" + shown + "}"


def redact(value: object, kind: str | None) -> object:
    """Give what may be shown of a value under a mark."""
    if value is None or kind is None:
        return value
    rule = _RULES[kind]
    return rule(value)


def secrets_of(contract: type[Any], given: Mapping[str, object] | object) -> set[str]:
    """Collect the secret strings of a call, given as the dataclass or as its JSON fields."""
    found: set[str] = set()
    for each in fields(contract):
        kind = each.metadata.get(MARK)
        value = given.get(each.name) if isinstance(given, Mapping) else getattr(given, each.name)
        if kind is not None and value is not None:
            found.update(_FINDERS[kind](value))
        elif is_dataclass(value) and not isinstance(value, type):
            found |= secrets_of(type(value), value)
        elif isinstance(value, tuple):
            for item in value:
                if is_dataclass(item) and not isinstance(item, type):
                    found |= secrets_of(type(item), item)
    return {each for each in found if len(each) >= SHORTEST_SECRET}


class Scrubber:
    """Strikes the secrets of one call, and whatever looks like a secret, from a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Compile the known secrets, the longest first, so that none leaves the rest of a longer one behind."""
        known = sorted({form for each in secrets for form in _forms(each)}, key=len, reverse=True)
        self._known = re.compile("|".join(re.escape(each) for each in known)) if known else None

    def __call__(self, text: str) -> str:
        """Give the text without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        text = _USER_INFO.sub(MASK + "@", text)
        text = _SCHEME.sub(r"\1 " + MASK, text)
        return _ASSIGNED.sub(r"\1" + MASK, text)


scrub = Scrubber()
"""Strikes what looks like a secret, for texts that belong to no call."""


def _forms(text: str) -> Iterator[str]:
    """Give the spellings under which a secret can turn up in a message."""
    yield text
    yield quote(text, safe="")
    escaped = repr(text)[1:-1]
    if escaped != text:
        yield escaped


def _brief(value: object) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, _Shown):
        return value.text
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


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
    return {name: MASK if sounds_secret(str(name)) else item for name, item in value.items()}


def _hide_url(value: object) -> object:
    if not isinstance(value, str):
        return MASK
    try:
        parts = urlsplit(value)
    except ValueError:
        return scrub(value)
    netloc = parts.netloc
    if "@" in netloc:
        netloc = MASK + "@" + netloc.rpartition("@")[2]
    query = "&".join(_hide_parameter(each) for each in parts.query.split("&")) if parts.query else ""
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


def _hide_parameter(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={MASK}" if equals and sounds_secret(unquote(name)) else pair


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
    return str(_hide_url(argument)) if "://" in argument else argument


def _hide_body(value: object) -> object:
    if isinstance(value, bytes):
        return _Shown(f"<{len(value)} bytes>")
    if isinstance(value, str):
        return _Shown(f"<{len(value)} characters>")
    return _Shown(f"<{type(value).__name__}>")


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for item in value:
            yield from _leaves(item)


def _all_secrets(value: object) -> Iterator[str]:
    leaves = list(_leaves(value))
    yield from leaves
    if len(leaves) == 2 and not isinstance(value, str | Mapping):  # noqa: PLR2004 - a user and a password
        yield base64.b64encode(":".join(leaves).encode()).decode()


def _named_secrets(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if sounds_secret(str(name)):
                yield from _leaves(item)
                # `Bearer abc`: the token must go even where the scheme is cut off.
                yield from (word for leaf in _leaves(item) for word in leaf.split())
            else:
                yield from _named_secrets(item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            yield from _named_secrets(item)


def _url_secrets(value: object) -> Iterator[str]:
    if not isinstance(value, str):
        return
    try:
        parts = urlsplit(value)
        user_info = parts.netloc.rpartition("@")[0]
        if user_info:
            yield user_info
            password = user_info.partition(":")[2]
            yield password
            yield unquote(password)
    except ValueError:
        return
    for name, item in parse_qsl(parts.query):
        if sounds_secret(name):
            yield item


def _argv_secrets(value: object) -> Iterator[str]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return
    expecting = False
    for argument in map(str, value):
        option = _OPTION.fullmatch(argument)
        if expecting and not argument.startswith("-"):
            yield argument
        if option and sounds_secret(option["name"]):
            yield option["value"]
        if "://" in argument:
            yield from _url_secrets(argument)
        expecting = argument.startswith("-") and not option and sounds_secret(argument)


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
    "named": _named_secrets,
    "url": _url_secrets,
    "argv": _argv_secrets,
    "body": _named_secrets,
}

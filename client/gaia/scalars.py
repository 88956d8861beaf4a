"""Values that have one form in Python and in JSON, and what is said of a value that does not fit.

A converter takes a value and, for the sake of those that need it, where bodies are kept.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args, get_origin

INT_LIMIT_BITS: Final = 8192
"""Larger integers are refused: Python writes none of more than 4300 digits, and other readers far fewer."""

SHOWN_CHARACTERS: Final = 200
"""A path is cut there: names in it are the sender's."""

Convert = Callable[[Any, Any], Any]


class Mismatch(ValueError):  # noqa: N818 - a finding about data; the caller turns it into an error of ours
    """A value does not fit its type. `path` names the field, as `headers.accept` or `items[3].status`."""

    def __init__(self, path: str, reason: str) -> None:
        """Keep both, for the caller's error."""
        path = path if len(path) <= SHOWN_CHARACTERS else path[: SHOWN_CHARACTERS - 1] + "…"
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def beneath(self, outer: str) -> "Mismatch":
        """Give the same finding seen from the container."""
        joint = "" if self.path.startswith("[") or not self.path else "."
        return Mismatch(f"{outer}{joint}{self.path}", self.reason)


def scalar(kind: Any) -> Convert:
    """Give the converter of a type that holds no other.

    Raises:
        TypeError: if it has no wire form.
    """
    if kind is Any or kind is object:
        return _json
    if get_origin(kind) is Literal:
        return _literal(get_args(kind))
    if kind is float:
        return _float
    if kind is int:
        return _int
    if kind in (str, bool):
        return exactly(kind)
    message = f"no wire form for {kind!r}"
    raise TypeError(message)


def exactly(kind: type) -> Convert:
    """Give a converter that lets values of str or bool pass, and no other."""
    names = {str: "a string", bool: "true or false"}

    def run(value: Any, _: Any) -> Any:
        if not isinstance(value, kind):
            raise Mismatch("", f"must be {names[kind]}, got {name_of(value)}")
        return value

    return run


def _int(value: Any, _: Any) -> int:
    # bool is a subclass of int; a flag is no number.
    if not isinstance(value, int) or isinstance(value, bool):
        raise Mismatch("", f"must be an integer, got {name_of(value)}")
    if value.bit_length() > INT_LIMIT_BITS:
        raise Mismatch("", f"must have at most {INT_LIMIT_BITS} bits")
    return value


def _float(value: Any, _: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Mismatch("", f"must be a number, got {name_of(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise Mismatch("", "must be a finite number")
    return found


def _literal(allowed: tuple[Any, ...]) -> Convert:
    def run(value: Any, _: Any) -> Any:
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise Mismatch("", f"must be one of {', '.join(map(str, allowed))}")
        return value

    return run


def _json(value: Any, blobs: Any) -> Any:
    """Let any JSON value pass, tuples as arrays."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return _int(value, blobs)
    if isinstance(value, float):
        return _float(value, blobs)
    if isinstance(value, Mapping):
        return {key(name): beneath(name, _json, each, blobs) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [beneath(f"[{index}]", _json, each, blobs) for index, each in enumerate(value)]
    raise Mismatch("", f"must be a JSON value, got {name_of(value)}")


def beneath(name: object, convert: Convert, value: Any, blobs: Any) -> Any:
    """Convert a part; what does not fit is told with the name of the part."""
    try:
        return convert(value, blobs)
    except Mismatch as found:
        raise found.beneath(str(name)) from None
    except RecursionError:
        raise Mismatch(str(name), "is nested too deeply") from None


def key(name: object) -> str:
    """Let the name of a member pass."""
    if not isinstance(name, str):
        raise Mismatch(repr(name), f"must have a string for its name, got {name_of(name)}")
    return name


def name_of(value: object) -> str:
    """Name the kind of a value as its sender knows it."""
    known = {type(None): "null", dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return known.get(type(value), type(value).__name__)

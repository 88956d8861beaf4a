"""JSON to dataclasses and back, strictly: one set of rules for producers and workers.

A converter is compiled once per type from its annotations and cached. The forms on the wire:

    str, int, float, bool, None   themselves; an int is taken for a float, nothing else is converted
    bytes                         base64 text; over `INLINE_LIMIT_BYTES` {"$artifact": {...}} when a store is at hand
    Body                          the same, and an `Artifact` that was put before; decoded it is always bytes
    Text                          itself; over `INLINE_LIMIT_BYTES` of UTF-8 an artifact, as bytes; decoded always a str
    tuple[X, ...]                 an array
    Mapping[str, X]               an object
    Literal[...]                  one of the values
    X | None                      null, or X
    Any                           any JSON value
    a dataclass                   an object of its fields; fields at their defaults are left out

Numbers must be finite: NaN is no JSON.
"""

import base64
import binascii
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Final, Literal, NewType, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

INLINE_LIMIT_BYTES: Final = 64 * 1024
"""A larger body travels as an artifact, so that the queue's lists hold small messages."""

ARTIFACT: Final = "$artifact"

INT_LIMIT_BITS: Final = 8192
"""Larger integers are refused: Python writes none of more than 4300 digits, and other readers far fewer."""

SHOWN_CHARACTERS: Final = 200
"""A path is cut there: names in it are the sender's."""

T = TypeVar("T")


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


@dataclass(frozen=True)
class Artifact:
    """A body that lies in the artifact store: `id` is 128 random bits in hexadecimal."""

    id: str
    size_bytes: int
    sha256: str
    media_type: str = "application/octet-stream"


Body = bytes | Artifact
"""A body in a call: its bytes, or one that lies in the store already."""

Text = NewType("Text", str)
"""A text that may be large."""


def content(body: Body) -> bytes:
    """Narrow a decoded body to its bytes.

    Raises:
        TypeError: for a reference, which only a call that was never decoded holds.
    """
    if isinstance(body, Artifact):
        raise TypeError("the body is an artifact that was not fetched")
    return body


class Blobs(Protocol):
    """Where large bodies are kept."""

    def session(self) -> "Session":
        """Give the same for one message, whose bodies are bounded, and removed if it is not sent, together."""


class Session(Blobs, Protocol):
    """Where the large bodies of one message are kept."""

    def put(self, body: bytes) -> Artifact:
        """Store a body."""

    def refer(self, artifact: Artifact) -> Artifact:
        """Give the reference that travels for a body stored before, and keep it as long as one stored now."""

    def get(self, artifact: Artifact) -> bytes:
        """Fetch a body, its size and checksum verified."""

    def discard(self) -> None:
        """Remove what was put in this session, as far as that can be done."""


Encode = Callable[[Any, Session | None], Any]
Decode = Callable[[Any, Session | None], Any]


def encode(value: object, blobs: Blobs | None = None) -> dict[str, Any]:
    """Give the JSON object of a dataclass. If that fails, its bodies that were stored already are removed.

    Raises:
        Mismatch: if a field holds what its type does not allow.
    """
    kind: Any = type(value)
    session = None if blobs is None else blobs.session()
    try:
        given: dict[str, Any] = _encoder(kind)(value, session)
    except BaseException:
        if session is not None:
            session.discard()
        raise
    return given


def decode(kind: type[T], given: object, blobs: Blobs | None = None, *, lenient: bool = False) -> T:
    """Make a dataclass from its JSON object.

    With `lenient`, fields that the type does not know are ignored, as a reader of a newer writer's results must.

    Raises:
        Mismatch: if a field is missing, unknown, or of the wrong type.
    """
    hashable: Any = kind
    found: T = _decoder(hashable, lenient)(given, None if blobs is None else blobs.session())
    return found


# --- encoding


@cache
def _encoder(kind: Any) -> Encode:  # noqa: PLR0911 - a table of forms
    if is_dataclass(kind):
        return _dataclass_encoder(kind)
    origin = get_origin(kind)
    if kind in (bytes, Body):
        return _encode_bytes if kind is bytes else _encode_body
    if kind is Text:
        return _encode_text
    if origin in (Union, types.UnionType):
        return _optional(_encoder(_only(kind)))
    if origin is tuple:
        return _encode_items(get_args(kind), _encoder)
    if origin is not None and issubclass(_class_of(origin), Mapping):
        return _encode_mapping(_encoder(get_args(kind)[1]))
    # Scalars have one form on both sides, so one check serves both directions.
    return _scalar(kind)


def _dataclass_encoder(kind: Any) -> Encode:
    hints = get_type_hints(kind)
    plan = [(each.name, _encoder(hints[each.name]), _default(each)) for each in fields(kind)]

    def run(value: Any, blobs: Session | None) -> Any:
        if not isinstance(value, kind):
            raise Mismatch("", f"must be {kind.__name__}, got {_name(value)}")
        given = {}
        for name, each, default in plan:
            item = getattr(value, name)
            if type(item) is type(default) and item == default:
                continue
            given[name] = _beneath(name, each, item, blobs)
        return given

    return run


def _default(each: Field[Any]) -> object:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _encode_body(value: Any, blobs: Session | None) -> Any:
    if isinstance(value, Artifact):
        _encoder(Artifact)(value, None)
        return _reference(value if blobs is None else blobs.refer(value))
    return _encode_bytes(value, blobs)


def _encode_bytes(value: Any, blobs: Session | None) -> Any:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise Mismatch("", f"must be bytes, got {_name(value)}")
    body = bytes(value)
    if blobs is not None and len(body) > INLINE_LIMIT_BYTES:
        return _reference(blobs.put(body))
    return base64.b64encode(body).decode("ascii")


def _encode_text(value: Any, blobs: Session | None) -> Any:
    text: str = _exactly(str)(value, None)
    # A character has at most four bytes, so most texts need no second look.
    if blobs is None or (len(text) * 4 <= INLINE_LIMIT_BYTES or len(text.encode()) <= INLINE_LIMIT_BYTES):
        return text
    return _reference(blobs.put(text.encode()))


def _reference(artifact: Artifact) -> dict[str, Any]:
    return {ARTIFACT: {each.name: getattr(artifact, each.name) for each in fields(artifact)}}


def _encode_mapping(item: Encode) -> Encode:
    def run(value: Any, blobs: Session | None) -> Any:
        if not isinstance(value, Mapping):
            raise Mismatch("", f"must be a mapping, got {_name(value)}")
        return {_key(name): _beneath(name, item, each, blobs) for name, each in value.items()}

    return run


def _encode_items(kinds: tuple[Any, ...], compiler: Callable[[Any], Encode]) -> Encode:
    """Convert a sequence, of any length if the kinds are `(X, ...)`, of exactly theirs otherwise."""
    endless = len(kinds) == 2 and kinds[1] is Ellipsis  # noqa: PLR2004 - the shape of tuple[X, ...]
    plan = [compiler(each) for each in (kinds[:1] if endless else kinds)]

    def run(value: Any, blobs: Session | None) -> list[Any]:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise Mismatch("", f"must be an array, got {_name(value)}")
        if not endless and len(value) != len(plan):
            raise Mismatch("", f"must have {len(plan)} items, got {len(value)}")
        return [_beneath(f"[{index}]", plan[0 if endless else index], each, blobs) for index, each in enumerate(value)]

    return run


# --- decoding


@cache
def _decoder(kind: Any, lenient: bool) -> Decode:  # noqa: FBT001, PLR0911 - a cache key; a table of forms
    if is_dataclass(kind):
        make: Any = kind
        convert = _fields_decoder(make, lenient)
        return lambda given, blobs: make(**convert(given, blobs))
    origin = get_origin(kind)
    if kind in (bytes, Body):
        return _bytes_decoder(lenient)
    if kind is Text:
        return _text_decoder(lenient)
    if origin in (Union, types.UnionType):
        return _optional(_decoder(_only(kind), lenient))
    if origin is tuple:
        items = _encode_items(get_args(kind), lambda each: _decoder(each, lenient))
        return lambda given, blobs: tuple(items(given, blobs))
    if origin is not None and issubclass(_class_of(origin), Mapping):
        return _encode_mapping(_decoder(get_args(kind)[1], lenient))
    return _scalar(kind)


@cache
def _fields_decoder(kind: Any, lenient: bool) -> Callable[[Any, Session | None], dict[str, Any]]:  # noqa: FBT001
    hints = get_type_hints(kind)
    plan = {each.name: _decoder(hints[each.name], lenient) for each in fields(kind)}
    needed = [
        each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING and each.init
    ]

    def run(given: Any, blobs: Session | None) -> dict[str, Any]:
        if type(given) is not dict and not isinstance(given, Mapping):
            raise Mismatch("", f"must be an object, got {_name(given)}")
        found: dict[str, Any] = {}
        for name, value in given.items():
            each = plan.get(name)
            if each is None:
                if lenient:
                    continue
                raise Mismatch(str(name), f"is unknown; known are {', '.join(sorted(plan))}")
            found[name] = _beneath(name, each, value, blobs)
        for name in needed:
            if name not in found:
                raise Mismatch(name, "is missing")
        return found

    return run


def _bytes_decoder(lenient: bool) -> Decode:  # noqa: FBT001 - as of its caller
    reference = _decoder(Artifact, lenient)

    def run(given: Any, blobs: Session | None) -> bytes:
        if not isinstance(given, Mapping) or set(given) != {ARTIFACT}:
            return _decode_base64(given)
        if blobs is None:
            raise Mismatch("", "is an artifact, and no artifact store is at hand")
        return blobs.get(reference(given[ARTIFACT], None))

    return run


def _text_decoder(lenient: bool) -> Decode:  # noqa: FBT001 - as of its caller
    body = _bytes_decoder(lenient)

    def run(given: Any, blobs: Session | None) -> str:
        if not isinstance(given, Mapping):
            text: str = _exactly(str)(given, None)
            return text
        try:
            return body(given, blobs).decode()  # type: ignore[no-any-return]  # what a decoder of bytes gives
        except UnicodeDecodeError:
            raise Mismatch("", "must be text in UTF-8") from None

    return run


def _decode_base64(given: Any) -> bytes:
    if not isinstance(given, str):
        raise Mismatch("", f"must be base64 text, got {_name(given)}")
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise Mismatch("", "must be base64 text") from None


# --- both


def _scalar(kind: Any) -> Encode:
    if kind is Any or kind is object:
        return _json
    if get_origin(kind) is Literal:
        return _literal(get_args(kind))
    if kind is float:
        return _float
    if kind is int:
        return _int
    if kind in (str, bool):
        return _exactly(kind)
    message = f"no wire form for {kind!r}"
    raise TypeError(message)


def _exactly(kind: type) -> Encode:
    names = {str: "a string", bool: "true or false"}

    def run(value: Any, _: Session | None) -> Any:
        if not isinstance(value, kind):
            raise Mismatch("", f"must be {names[kind]}, got {_name(value)}")
        return value

    return run


def _int(value: Any, _: Session | None) -> int:
    # bool is a subclass of int; a flag is no number.
    if not isinstance(value, int) or isinstance(value, bool):
        raise Mismatch("", f"must be an integer, got {_name(value)}")
    if value.bit_length() > INT_LIMIT_BITS:
        raise Mismatch("", f"must have at most {INT_LIMIT_BITS} bits")
    return value


def _float(value: Any, _: Session | None) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Mismatch("", f"must be a number, got {_name(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise Mismatch("", "must be a finite number")
    return found


def _literal(allowed: tuple[Any, ...]) -> Encode:
    def run(value: Any, _: Session | None) -> Any:
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise Mismatch("", f"must be one of {', '.join(map(str, allowed))}")
        return value

    return run


def _json(value: Any, blobs: Session | None) -> Any:
    """Let any JSON value pass, tuples as arrays."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return _int(value, blobs)
    if isinstance(value, float):
        return _float(value, blobs)
    if isinstance(value, Mapping):
        return {_key(name): _beneath(name, _json, each, blobs) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_beneath(f"[{index}]", _json, each, blobs) for index, each in enumerate(value)]
    raise Mismatch("", f"must be a JSON value, got {_name(value)}")


def _optional(inner: Encode) -> Encode:
    return lambda value, blobs: None if value is None else inner(value, blobs)


def _beneath(name: object, convert: Encode, value: Any, blobs: Session | None) -> Any:
    try:
        return convert(value, blobs)
    except Mismatch as found:
        raise found.beneath(str(name)) from None
    except RecursionError:
        raise Mismatch(str(name), "is nested too deeply") from None


def _key(name: object) -> str:
    if not isinstance(name, str):
        raise Mismatch(repr(name), f"must have a string for its name, got {_name(name)}")
    return name


def _only(kind: Any) -> Any:
    """Give X of `X | None`."""
    inner = [each for each in get_args(kind) if each is not type(None)]
    if set(inner) == set(get_args(Body)):
        return Body
    if len(inner) != 1:
        message = f"a union has no wire form, only `X | None`: {kind!r}"
        raise TypeError(message)
    return inner[0]


def _class_of(origin: Any) -> type:
    return origin if isinstance(origin, type) else object


def _name(value: object) -> str:
    known = {type(None): "null", dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return known.get(type(value), type(value).__name__)

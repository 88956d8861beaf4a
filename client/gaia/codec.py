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
    a generic dataclass of X      the same, as `Outcome[Response]`
    a class with a form           as its module says with `register`: errors

Numbers must be finite: NaN is no JSON.
"""

import base64
import binascii
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Final, NewType, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from gaia.scalars import Mismatch as Mismatch  # noqa: PLC0414 - part of what this module raises
from gaia.scalars import beneath, exactly, key, name_of, scalar

INLINE_LIMIT_BYTES: Final = 64 * 1024
"""A larger body travels as an artifact, so that the queue's lists hold small messages."""

ARTIFACT: Final = "$artifact"

T = TypeVar("T")


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

_forms: dict[type, tuple[Encode, Decode]] = {}


def register(kind: type, encode: Callable[[Any], object], decode: Callable[[Any], object]) -> None:
    """Give a class, and its subclasses where a field is declared as the class itself, a wire form of its own.

    `encode` gives JSON, `decode` makes the value or raises `Mismatch`.
    """

    def checked(value: Any, _: Session | None) -> object:
        if not isinstance(value, kind):
            raise Mismatch("", f"must be {kind.__name__}, got {name_of(value)}")
        return encode(value)

    _forms[kind] = (checked, lambda given, _: decode(given))


def hints_of(kind: Any) -> dict[str, Any]:
    """Give the types of a dataclass' fields; of a generic one with its arguments put in."""
    origin = get_origin(kind) or kind
    known = dict(zip(getattr(origin, "__parameters__", ()), get_args(kind), strict=False))
    return {name: _bound(hint, known) for name, hint in get_type_hints(origin).items()}


def dataclass_of(kind: Any) -> type[Any] | None:
    """Give the dataclass of a type, generic or not; None if it is none."""
    origin = get_origin(kind) or kind
    return origin if isinstance(origin, type) and is_dataclass(origin) else None


def _bound(hint: Any, known: Mapping[Any, Any]) -> Any:
    if hint in known:
        return known[hint]
    inner = getattr(hint, "__parameters__", ())
    return hint[tuple(known[each] for each in inner)] if inner else hint


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
def _encoder(kind: Any) -> Encode:  # noqa: PLR0911 - one for each form
    if dataclass_of(kind) is not None and kind not in _forms:
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
    if kind in _forms:
        return _forms[kind][0]
    # Scalars have one form on both sides, so one check serves both directions.
    return scalar(kind)


def _dataclass_encoder(kind: Any) -> Encode:
    hints = hints_of(kind)
    made: Any = dataclass_of(kind)
    plan = [(each.name, _encoder(hints[each.name]), _default(each)) for each in fields(made)]

    def run(value: Any, blobs: Session | None) -> Any:
        if not isinstance(value, made):
            raise Mismatch("", f"must be {made.__name__}, got {name_of(value)}")
        given = {}
        for name, each, default in plan:
            item = getattr(value, name)
            if type(item) is type(default) and item == default:
                continue
            given[name] = beneath(name, each, item, blobs)
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
        raise Mismatch("", f"must be bytes, got {name_of(value)}")
    body = bytes(value)
    if blobs is not None and len(body) > INLINE_LIMIT_BYTES:
        return _reference(blobs.put(body))
    return base64.b64encode(body).decode("ascii")


def _encode_text(value: Any, blobs: Session | None) -> Any:
    text: str = exactly(str)(value, None)
    # A character has at most four bytes, so most texts need no second look.
    if blobs is None or (len(text) * 4 <= INLINE_LIMIT_BYTES or len(text.encode()) <= INLINE_LIMIT_BYTES):
        return text
    return _reference(blobs.put(text.encode()))


def _reference(artifact: Artifact) -> dict[str, Any]:
    return {ARTIFACT: {each.name: getattr(artifact, each.name) for each in fields(artifact)}}


def _encode_mapping(item: Encode) -> Encode:
    def run(value: Any, blobs: Session | None) -> Any:
        if not isinstance(value, Mapping):
            raise Mismatch("", f"must be a mapping, got {name_of(value)}")
        return {key(name): beneath(name, item, each, blobs) for name, each in value.items()}

    return run


def _encode_items(kinds: tuple[Any, ...], compiler: Callable[[Any], Encode]) -> Encode:
    """Convert a sequence, of any length if the kinds are `(X, ...)`, of exactly theirs otherwise."""
    endless = len(kinds) == 2 and kinds[1] is Ellipsis  # noqa: PLR2004 - the shape of tuple[X, ...]
    plan = [compiler(each) for each in (kinds[:1] if endless else kinds)]

    def run(value: Any, blobs: Session | None) -> list[Any]:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise Mismatch("", f"must be an array, got {name_of(value)}")
        if not endless and len(value) != len(plan):
            raise Mismatch("", f"must have {len(plan)} items, got {len(value)}")
        return [beneath(f"[{index}]", plan[0 if endless else index], each, blobs) for index, each in enumerate(value)]

    return run


# --- decoding


@cache
def _decoder(kind: Any, lenient: bool) -> Decode:  # noqa: FBT001, PLR0911 - a cache key; one for each form
    if kind in _forms:
        return _forms[kind][1]
    make: Any = dataclass_of(kind)
    if make is not None:
        convert = _fields_decoder(kind, lenient)
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
    return scalar(kind)


@cache
def _fields_decoder(kind: Any, lenient: bool) -> Callable[[Any, Session | None], dict[str, Any]]:  # noqa: FBT001
    hints = hints_of(kind)
    made: Any = dataclass_of(kind)
    plan = {each.name: _decoder(hints[each.name], lenient) for each in fields(made)}
    needed = [
        each.name for each in fields(made) if each.default is MISSING and each.default_factory is MISSING and each.init
    ]

    def run(given: Any, blobs: Session | None) -> dict[str, Any]:
        if type(given) is not dict and not isinstance(given, Mapping):
            raise Mismatch("", f"must be an object, got {name_of(given)}")
        found: dict[str, Any] = {}
        for name, value in given.items():
            each = plan.get(name)
            if each is None:
                if lenient:
                    continue
                raise Mismatch(str(name), f"is unknown; known are {', '.join(sorted(plan))}")
            found[name] = beneath(name, each, value, blobs)
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
            text: str = exactly(str)(given, None)
            return text
        try:
            return body(given, blobs).decode()  # type: ignore[no-any-return]  # what a decoder of bytes gives
        except UnicodeDecodeError:
            raise Mismatch("", "must be text in UTF-8") from None

    return run


def _decode_base64(given: Any) -> bytes:
    if not isinstance(given, str):
        raise Mismatch("", f"must be base64 text, got {name_of(given)}")
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise Mismatch("", "must be base64 text") from None


# --- both


def _optional(inner: Encode) -> Encode:
    return lambda value, blobs: None if value is None else inner(value, blobs)


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

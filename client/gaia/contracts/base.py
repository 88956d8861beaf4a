"""What every contract is made of: `Call`, `Result`, the marks of secret fields, and the retry policy.

A call is declared as

    @contract
    class Request(Call[Response], operation="api.request"):
        url: str = secret("url")

The queue is the part before the dot, the result type is the parameter of `Call`.
"""

import importlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar, Final, Generic, Literal, Self, TypeVar, dataclass_transform, get_args

from gaia import codec, redaction, wire
from gaia.errors import GaiaError, InvalidCall, Transient
from gaia.sticky import HolderId

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

CALLS: dict[str, type["Call[Any]"]] = {}
"""Operation name to contract, filled as the modules of contracts are imported."""


def operations(queue: str) -> list[str]:
    """Give the operations of a queue by name, none if this version knows no such queue."""
    if queue in wire.QUEUES:
        importlib.import_module(f"gaia.contracts.{queue}")
    return sorted(name for name, call in CALLS.items() if queue == call.QUEUE)


URL_FORBIDDEN: Final = (*map(chr, range(0x21)), "\x7f")
"""Blanks and control characters: some readers of URLs drop them, so two would see two URLs (RFC 3986 section 2)."""

REASON_CHARACTERS: Final = 400
"""A reason is cut there: names in it are the caller's."""

Secrecy = Literal["all", "values", "named", "url", "argv", "body"]
"""How a field is redacted, see `gaia.redaction`."""


def secret(kind: Secrecy, *, default: Any = MISSING, default_factory: Any = MISSING) -> Any:
    """Declare a field that `gaia.redaction` hides, in whole or in part, wherever a call is shown."""
    metadata = {redaction.MARK: kind}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RetryPolicy:
    """How often a call may run, and how long to wait in between.

    Full jitter, after "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): before attempt n+1 wait a time
    drawn evenly from 0 to min(`cap_s`, `base_s` * 2**(n-1)).
    """

    attempts: int = 1
    base_s: float = 0.5
    cap_s: float = 30.0

    def pause_s(self, attempt: int, *, draw: float | None = None) -> float:
        """Give the seconds to wait after the `attempt`-th run failed; `draw` from 0 to 1 replaces chance."""
        # Past 2**32 the cap has long won; a bounded exponent keeps the float finite.
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 32))
        return ceiling * (random.random() if draw is None else draw)  # noqa: S311 - jitter is no secret


class _Shown:
    """A redacted repr for calls and results alike."""

    def __repr__(self) -> str:
        return redaction.show(self)


class Result(_Shown):
    """The base of everything an operation answers with."""


class Call(_Shown, Generic[R_co]):
    """The base of every call; the parameter is the type of its result."""

    OPERATION: ClassVar[str]
    QUEUE: ClassVar[str]
    RESULT: ClassVar[type[Any]]
    RETRY: ClassVar[RetryPolicy] = RetryPolicy()
    HOLDER: ClassVar[str | None] = None
    """The field with the id of what the call is about, if that lives on one worker: the call goes there."""

    def __init_subclass__(cls, operation: str | None = None, **options: Any) -> None:
        """Enter the contract into `CALLS`; a class without an operation is a base of several."""
        super().__init_subclass__(**options)
        if operation is None:
            return
        cls.OPERATION = operation
        cls.QUEUE = operation.partition(".")[0]
        (cls.RESULT,) = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]  # set by typing.Generic
        CALLS[operation] = cls

    def __post_init__(self) -> None:
        """Turn `timedelta` into seconds in fields named `_s`, then check the bounds.

        Raises:
            InvalidCall: with the field's name.
        """
        kind: Any = type(self)
        for name in _durations(kind):
            value = getattr(self, name)
            if isinstance(value, timedelta):
                object.__setattr__(self, name, value.total_seconds())
        try:
            self.check()
            self.holder()
        except (AttributeError, TypeError, ValueError, LookupError):
            # A field of the wrong type broke a check that takes types for granted: name the field.
            self.fields_json()
            raise

    def fields_json(self, blobs: codec.Blobs | None = None) -> dict[str, Any]:
        """Give the fields as the JSON object that travels.

        Raises:
            InvalidCall: if a field holds what its type does not allow.
        """
        try:
            return codec.encode(self, blobs)
        except codec.Mismatch as found:
            raise self.refuse(found.path, found.reason) from None

    @classmethod
    def from_json(cls, given: Mapping[str, object], blobs: codec.Blobs | None = None) -> Self:
        """Make a call from the JSON object that travelled.

        Raises:
            InvalidCall: if a field is missing, unknown, of the wrong type, or out of bounds.
        """
        try:
            return codec.decode(cls, given, blobs)
        except codec.Mismatch as found:
            raise InvalidCall(cls.OPERATION, found.path, found.reason) from None

    def check(self) -> None:
        """Check bounds that the types cannot say; overridden where there are any."""

    def holder(self) -> HolderId | None:
        """Give the id of what the call is about, None if it may run anywhere.

        Raises:
            InvalidCall: if the field holds no such id.
        """
        given = None if self.HOLDER is None else getattr(self, self.HOLDER)
        if self.HOLDER is None or given is None:
            return None
        try:
            return HolderId.parse(given)
        except ValueError as failure:
            raise self.refuse(self.HOLDER, str(failure)) from None

    def retries(self) -> RetryPolicy:
        """Give how often this call may run, and how long to wait in between."""
        return self.RETRY

    def may_retry(self, error: GaiaError) -> bool:
        """Say whether this call may run again after that error."""
        return isinstance(error, Transient)

    def refuse(self, field_name: str, reason: str) -> InvalidCall:
        """Make the error for a field that is out of bounds."""
        return InvalidCall(self.OPERATION, field_name, redaction.scrub(reason[:REASON_CHARACTERS]))

    def require(self, field_name: str, reason: str, *, holds: bool) -> None:
        """Raise `InvalidCall` for the field unless the condition holds."""
        if not holds:
            raise self.refuse(field_name, reason)

    def require_between(self, field_name: str, low: float, high: float) -> None:
        """Raise `InvalidCall` unless the number is from `low` to `high`, both included; None passes."""
        value = getattr(self, field_name)
        # The words are made only for whoever needs them: a batch checks thousands of numbers.
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            # So many digits that no number of bytes is told as 1.1e+12, and 0.1 still as 0.1.
            raise self.refuse(field_name, f"must be a number from {low:.15g} to {high:.15g}")

    def require_text(self, field_name: str, *, limit: int = 8192, forbidden: Iterable[str] = ("\0",)) -> None:
        """Raise `InvalidCall` unless the field is a non-empty string within the limit, without those characters."""
        value = getattr(self, field_name)
        if not isinstance(value, str):
            raise self.refuse(field_name, "must be a string")
        if not 0 < len(value) <= limit:
            raise self.refuse(field_name, f"must have 1 to {limit} characters")
        if not set(value).isdisjoint(forbidden):
            found = next(each for each in value if each in forbidden)
            raise self.refuse(field_name, f"must not contain {found!r}")
        self.require(field_name, "must not contain lone surrogates", holds=is_unicode(value))


@cache
def _durations(kind: Any) -> tuple[str, ...]:
    """Name the fields of a call that hold seconds."""
    return tuple(each.name for each in fields(kind) if each.name.endswith("_s"))


def is_unicode(text: str) -> bool:
    """Say whether a string can be encoded: JSON may carry halves of surrogate pairs, which no encoding has."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)


@dataclass_transform(frozen_default=True, field_specifiers=(field, secret))
def contract(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass that keeps the redacted repr."""
    return dataclass(frozen=True, repr=False)(cls)

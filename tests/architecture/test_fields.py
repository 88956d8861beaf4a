"""Contracts, and those inside them: frozen, redacted, marked where a secret may be, their units named."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, get_args, get_type_hints

from gaia import codec, redaction, wire
from gaia.contracts.base import CALLS, Call, Result
from gaia.errors import GaiaError

for queue in wire.QUEUES:
    import_module(f"gaia.contracts.{queue}")

SECRET_NAMES = re.compile(
    r"(^|_)(headers?|cookies?|auth|env|environ|argv|url|params|query|data|json|body|html|stdin|stdout|stderr)$"
)


def nested(kind: Any) -> Iterator[type]:
    """Give the dataclasses that an annotation mentions, itself included, and those that these mention."""
    if is_dataclass(kind) and isinstance(kind, type) and kind not in (codec.Artifact, GaiaError):
        yield kind
        hints = get_type_hints(kind)
        for each in fields(kind):
            yield from nested(hints[each.name])
    for inner in get_args(kind):
        yield from nested(inner)


CONTRACTS = sorted(
    {
        kind
        for call in CALLS.values()
        if call.__module__.startswith("gaia.")
        for kind in (*nested(call), *nested(call.RESULT))
    },
    key=lambda kind: f"{kind.__module__}.{kind.__name__}",
)


def identify(value: object) -> str | None:
    return f"{value.__module__.rpartition('.')[2]}.{value.__name__}" if isinstance(value, type) else None


def holds_bytes(hint: Any) -> bool:
    return hint is bytes or any(holds_bytes(each) for each in get_args(hint))


def test_a_contract_is_a_frozen_call_or_result_of_the_client() -> None:
    for kind in CONTRACTS:
        assert issubclass(kind, Call | Result)
        assert vars(kind)["__dataclass_params__"].frozen
        assert kind.__module__.startswith("gaia.contracts.")


def test_a_contract_shows_itself_redacted() -> None:
    for kind in CONTRACTS:
        assert "__repr__" not in vars(kind)


def test_a_field_that_may_hold_a_secret_is_marked() -> None:
    for kind in CONTRACTS:
        for each in fields(kind):
            hint = get_type_hints(kind)[each.name]
            suspect = holds_bytes(hint) or SECRET_NAMES.search(each.name) or redaction.sounds_secret(each.name)
            if suspect and not nested_only(hint):
                assert redaction.MARK in each.metadata, each.name


def test_a_number_of_a_quantity_names_its_unit() -> None:
    for kind in CONTRACTS:
        for each in fields(kind):
            if each.type in (float, float | None):
                assert each.name.endswith(("_s", "_per_s", "_ratio")) or each.name == "scale", each.name
            assert not re.search(r"_(ms|sec|secs|seconds|kb|mb|timeout|size|length)$", each.name), each.name


def nested_only(hint: Any) -> bool:
    """Say whether the value is contracts, whose own fields are marked."""
    return any(is_dataclass(each) for each in (hint, *get_args(hint)))

"""JSON as kombu and Celery write and read it, several times as fast.

msgspec keeps what others lose: integers of any size. What it refuses and the standard library takes goes the slow way:
NaN when it is read, halves of surrogate pairs, objects that say themselves what their JSON is. Times, UUIDs, decimals
and bytes it writes as text, where kombu would note their types; results and Celery's own events hold none.
"""

import json
from typing import Any

import msgspec
from kombu.utils.json import dumps as kombu_dumps

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def loads(text: bytes | str) -> Any:
    """Read JSON, given as text or in UTF-8.

    Raises:
        ValueError: if it is none.
        RecursionError: if it is nested too deeply.
    """
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return json.loads(text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text)


def dumps(subject: Any) -> bytes:
    """Write plain values as JSON in UTF-8. NaN becomes null, where the standard library writes what is no JSON.

    Raises:
        TypeError, ValueError: as kombu does, if it can write neither.
    """
    try:
        return _encode(subject)
    except (TypeError, ValueError):
        found: str = kombu_dumps(subject)
        return found.encode()

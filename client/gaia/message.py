"""A call as the text of a Celery message (protocol 2, JSON) on kombu's Redis transport.

It is written here rather than by Celery: publishing is then one command with the text, or one script call that also
claims an idempotency key or a due time, and a producer needs nothing but redis-py. Stock workers read it like any
other; its layout is kombu's, the properties last, where the worker's fetch script looks for the ids.
"""

import base64
import json
import os
import socket
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from gaia import wire
from gaia.contracts.base import Call
from gaia.errors import PayloadTooLarge

_EMBED: Final = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'

_MESSAGE: Final = (
    '{"body": "%s", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"lang": "py", '
    '"task": "%s", "id": "%s", "shadow": null, "eta": null, "expires": %s, "group": null, "group_index": null, '
    '"retries": 0, "timelimit": [null, null], "root_id": "%s", "parent_id": null, "argsrepr": "()", "kwargsrepr": "", '
    '"origin": %s, "ignore_result": %s, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}, '
    '"gaia": %s}, "properties": {"correlation_id": "%s", "reply_to": "", "delivery_mode": 2, "delivery_info": '
    '{"exchange": "", "routing_key": "%s"}, "priority": %d, "body_encoding": "base64", "delivery_tag": "%s"}}'
)
"""kwargsrepr stays empty: the worker makes the redacted one itself, whoever wrote the message."""


def new_id() -> str:
    """Give a random UUID (version 4, RFC 9562), as Celery's ids are."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def text_of(
    call: Call[Any],
    fields: dict[str, Any],
    *,
    call_id: str,
    envelope: wire.Envelope,
    priority: int,
    expires_at: float | None,
    stored: bool,
) -> str:
    """Write the message of a call; its delivery tag is the call's id.

    Raises:
        PayloadTooLarge: if the fields have more than 1 MiB as JSON.
    """
    payload = json.dumps(fields) if fields else "{}"
    if len(payload) > wire.MESSAGE_LIMIT_BYTES:
        raise PayloadTooLarge(call.OPERATION, len(payload), wire.MESSAGE_LIMIT_BYTES)
    body = base64.b64encode(f"[[], {payload}, {_EMBED}]".encode()).decode("ascii")
    expires = "null" if expires_at is None else f'"{datetime.fromtimestamp(expires_at, UTC).isoformat()}"'
    return _MESSAGE % (
        body,
        call.OPERATION,
        call_id,
        expires,
        call_id,
        _origin(os.getpid()),
        "false" if stored else "true",
        envelope.text(),
        call_id,
        call.QUEUE,
        priority,
        call_id,
    )


@cache
def _origin(pid: int) -> str:
    return json.dumps(f"gaia{pid}@{socket.gethostname()}")


def opened(raw: bytes) -> tuple[dict[str, Any], object]:
    """Give the headers and fields of a message, whoever wrote it, as far as it has any."""
    try:
        found = json.loads(raw)
        headers = found["headers"]
        body = base64.b64decode(found["body"])
        return (headers if isinstance(headers, dict) else {}), json.loads(body)[1]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return {}, None

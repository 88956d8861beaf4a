"""What the transport has to know of a message before it hands it on."""

import json
import time
from binascii import a2b_base64
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from gaia import wire

OVERDUE_S: Final = 60.0
"""How long past its deadline a running call's lease is still renewed."""


def renewed_until(message: Mapping[str, Any], default_s: float = wire.DEFAULT_DEADLINE_S) -> float:
    """Give the monotonic time up to which a message's lease is renewed: its call's deadline, and a while.

    A call that brings no deadline has `default_s` from now.
    """
    header = message["headers"].get(wire.HEADER)
    _, deadline = wire.times(header)
    left_s = default_s if deadline is None else deadline - time.time()
    return time.monotonic() + max(left_s, 0.0) + OVERDUE_S


def due_at(headers: Mapping[str, Any]) -> float | None:
    """Give the time before which a message must not run, as seconds since the epoch; None if it names none."""
    eta = headers.get("eta")
    if not isinstance(eta, str):
        return None
    try:
        due = datetime.fromisoformat(eta)
    except ValueError:
        return None  # Celery refuses it, with a reason
    return (due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp()


def paused_in(headers: Mapping[str, Any], paused: Collection[str]) -> str | None:
    """Give what keeps a fetched message from starting: its operation, or the queue that names, is paused.

    A paused queue is not fetched from. But its operations come by other queues, too: a node's own.
    """
    if not paused:
        return None
    operation = str(headers.get("task"))
    return next((each for each in (operation, operation.partition(".")[0]) if each in paused), None)


def flaw_of(message: object) -> str | None:
    """Say what keeps JSON from being a kombu message, None if nothing does."""
    if not isinstance(message, dict):
        return "it is no object"
    properties = message.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    info = properties.get("delivery_info")
    headers = message.get("headers")
    flaw = None
    if not isinstance(properties.get("delivery_tag"), str):
        flaw = "it has no delivery tag"
    elif not isinstance(info, dict) or "exchange" not in info or "routing_key" not in info:
        flaw = "it has no delivery information"
    elif not isinstance(message.get("body", ""), str):
        flaw = "its body is no text"
    elif not isinstance(headers, dict):
        flaw = "it has no headers"
    elif not isinstance(headers.get("id", ""), str):
        flaw = "its id is no text"
    elif not isinstance(headers.get("shadow") or "", str):
        flaw = "its shadow is no text"
    elif not isinstance(headers.get("task", ""), str):
        flaw = "its task is no name"
    elif not _decodes(message.get("body"), properties.get("body_encoding")):
        flaw = "its body cannot be decoded"
    return flaw


def _decodes(body: object, encoding: object) -> bool:
    """Say whether kombu can decode a body: it knows base64 and plain text."""
    if not body or not encoding or encoding == "utf-8":
        return True
    try:
        a2b_base64(str(body))
    except ValueError:
        return False
    return encoding == "base64"


def waiting_again(message: Mapping[str, Any], since: float, told: Mapping[str, Any]) -> str:
    """Give the text of a message that waits anew, with other headers, and without what the turn has told of it."""
    properties = {name: value for name, value in message["properties"].items() if not name.startswith("gaia_")}
    headers = {**message["headers"], **told}
    if wire.HEADER in headers:
        headers[wire.HEADER] = wire.waiting_again(headers[wire.HEADER], since)
    return json.dumps({**message, "headers": headers, "properties": properties})

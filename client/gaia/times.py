"""The times in the arguments of `Gaia.submit`."""

import time
from datetime import datetime, timedelta
from typing import Any, Final

from gaia.contracts.base import Call
from gaia.pending import seconds

LONGEST_S: Final = 10 * 365 * 86_400


def within(given: float | timedelta) -> float | None:
    """Give a duration as seconds; None if it is none, or ten years long."""
    try:
        found = seconds(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found < LONGEST_S else None


def duration(call: Call[Any], name: str, given: float | timedelta) -> float:
    """Give an argument as seconds.

    Raises:
        InvalidCall: unless it is positive, and below ten years.
    """
    found = within(given)
    if found is None or found <= 0:
        raise call.refuse(name, "must be a positive duration, in seconds or as a timedelta, below ten years")
    return found


def due_at(call: Call[Any], delay: float | timedelta | None, eta: datetime | None) -> float | None:
    """Give the time before which a call must not start, in seconds since the epoch; None if it may start at once.

    Raises:
        InvalidCall: if both are given, or one is out of bounds.
    """
    if delay is not None and eta is not None:
        raise call.refuse("delay", "excludes eta")
    if delay is not None:
        return time.time() + duration(call, "delay", delay)
    if eta is None:
        return None
    if not isinstance(eta, datetime) or eta.tzinfo is None:
        raise call.refuse("eta", "must be a datetime with a time zone")
    if eta.timestamp() > time.time() + LONGEST_S:
        raise call.refuse("eta", "must be within ten years")
    return eta.timestamp()

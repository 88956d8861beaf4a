"""How late a loop is: a timer of the kernel is due each second, and the loop says how long after that it ran.

A timer of kombu's own loop would not do: it may come a second late by design.
"""

import ctypes
import logging
import os
import struct
import time
from typing import Final

from tasks import metrics

PERIOD_S: Final = 1

log = logging.getLogger(__name__)

_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Lag:
    """One loop's timer: a descriptor that is readable when it is due. Of the loop's thread, once it is made."""

    def __init__(self, loop: str) -> None:
        """Start the timer, timerfd_create(2); `loop` is its label.

        Raises:
            OSError: if there are no more descriptors.
        """
        self._observe = metrics.LOOP_LAG.labels(loop).observe
        self.descriptor: Final = _checked(_LIBC.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC))
        self._due_s = time.monotonic() + PERIOD_S
        seconds, fraction = divmod(self._due_s, 1)
        when = struct.pack("llll", PERIOD_S, 0, int(seconds), int(fraction * 1e9))
        absolute = 1
        _checked(_LIBC.timerfd_settime(self.descriptor, absolute, when, None))

    def tell(self) -> None:
        """Say how late the timer runs that was due first; those that were due meanwhile ran with it."""
        try:
            (expired,) = struct.unpack("Q", os.read(self.descriptor, 8))
        except BlockingIOError:
            return
        self._observe(max(0.0, time.monotonic() - self._due_s))
        self._due_s += expired * PERIOD_S

    def close(self) -> None:
        """End the timer."""
        os.close(self.descriptor)


def timer_of(loop: str) -> Lag | None:
    """Start a loop's timer; where none can be had, its lag is not told, and the loop does all else."""
    try:
        return Lag(loop)
    except OSError as failure:
        log.warning("how late the %s loop is cannot be told: %s", loop, failure.strerror)
        return None


def _checked(found: int) -> int:
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found

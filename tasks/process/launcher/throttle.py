"""A share of CPU without a control group: a tree that is ahead of its share is stopped until it is not.

As cpulimit(1) does. A stopped process cannot tell, but its parent can (waitpid(2) with WUNTRACED).
"""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from tasks.process.launcher.tree import Sample, Stat

BURST_S: Final = 0.05
"""CPU time that a tree may be ahead; and, unused, what it may save up."""
PAUSE_S: Final = 1.0
"""The longest stop at a time."""


class Throttle:
    """Keeps the account of one tree. Time is an argument."""

    def __init__(self, share: float | None, now: float) -> None:
        """Take the share of one core, None for no limit."""
        self._share = share
        self._ahead_s = 0.0
        self._seen_s = 0.0
        self._at = now
        self._stopped: list[Stat] = []
        self.resume_at: float | None = None

    def account(self, found: Sample, now: float) -> None:
        """Take a look into account; stop the tree if it is too far ahead."""
        if self._share is None or self.resume_at is not None:
            return
        used = max(0.0, found.cpu_s - self._seen_s)
        self._ahead_s = max(-BURST_S, self._ahead_s + used - self._share * (now - self._at))
        self._seen_s, self._at = max(self._seen_s, found.cpu_s), now
        if self._ahead_s > BURST_S:
            # What stopped itself stays so.
            self._stopped = [each for each in found.members if each.state not in b"Tt"]
            _send(self._stopped, signal.SIGSTOP)
            self.resume_at = now + min(PAUSE_S, self._ahead_s / self._share)

    def resume(self) -> None:
        """Let go on what was stopped here."""
        _send(self._stopped, signal.SIGCONT)
        self._stopped, self.resume_at = [], None


def _send(members: Iterable[Stat], number: signal.Signals) -> None:
    for each in members:
        # Below a subreaper that has not waited for it, a pid is not used again.
        with suppress(ProcessLookupError, PermissionError):
            os.kill(each.pid, number)

"""Waiting for leave, within the bounds of a call.

A slot of a worker is not for waiting: leave that takes longer than 250 ms is `LimitExceeded`, and the service turns
that into `Later(error.retry_after_s)`, which gives the slot back. Leave that was reserved is spent, so it is waited
for: up to 200 ms more. The deadline and a cancel of the call bound every wait.
"""

from collections.abc import Callable
from math import inf
from typing import Final, TypeVar

from gaia.errors import LimitExceeded
from tasks.limits import counting
from tasks.limits.protocols import Admitted, Refused
from tasks.scope import Scope

LONGEST_S: Final = 0.25

A = TypeVar("A")


def leave(scope: Scope, ask: Callable[[], A | Refused], *, limit: str, longest_s: float = LONGEST_S) -> A:
    """Ask until the answer is leave, for at most `longest_s` together; then wait for what was reserved.

    `limit` names the stack in an error when the deadline comes before what was reserved.

    Raises:
        LimitExceeded: the wait would be longer than that, or than what is left of the deadline.
        Cancelled, DeadlineExceeded: of the call.
        Unreachable: of what is asked.
    """
    ends_at = scope.clock.monotonic() + longest_s
    while True:
        found = ask()
        if isinstance(found, Admitted) and found.wait_s > 0:
            _pause(scope, found.wait_s, limit, inf)
        if not isinstance(found, Refused):
            return found
        _pause(scope, found.retry_after_s, found.limit, ends_at)


def _pause(scope: Scope, seconds: float, limit: str, ends_at: float) -> None:
    scope.check()
    now = scope.clock.monotonic()
    if now + seconds > ends_at or seconds >= scope.remaining_s():
        raise LimitExceeded(limit, round(seconds, 6))
    scope.cancelled.wait(seconds)
    counting.paused(limit, scope.clock.monotonic() - now)
    scope.check()

"""What bounds one capture: the call's own time-out within its scope."""

from gaia.errors import TimedOut
from tasks.scope import Scope


class Bound:
    """Gives the time left for the next wait."""

    def __init__(self, scope: Scope, timeout_s: float) -> None:
        """Start the call's time."""
        self.scope = scope
        self._timeout_s = timeout_s
        self._ends_at = scope.clock.monotonic() + timeout_s

    def left_s(self) -> float:
        """Give the seconds left, above zero.

        Raises:
            Cancelled, DeadlineExceeded: as the scope says.
            TimedOut: if the call's own time has passed.
        """
        left = self._ends_at - self.scope.clock.monotonic()
        bound = self.scope.bound_s()
        if left <= 0:
            raise self.passed()
        return min(bound, left)

    def passed(self) -> TimedOut:
        """Make the error for a call whose own time has passed."""
        return TimedOut(self.scope.operation, self._timeout_s)

"""The limits of the cluster, as requests meet them.

Every exchange asks, in this order: the host's circuit (or its word when to come back), the rates, the slots. With Redis
away all of them fail open: a request that its owner wants sent is not held up by the loss of a counter, and the outage
is in `gaia_limits_away_total`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from gaia.contracts import api
from gaia.errors import CircuitOpen, GaiaError, LimitExceeded, PoolExhausted, Transient
from tasks.limits.cluster import Limits
from tasks.limits.policy import levels
from tasks.limits.protocols import Admitted, Away, Passage, Refused
from tasks.limits.renewal import Held
from tasks.scope import Later, Scope

OPEN: Final = Away.FAIL_OPEN

SERVER_ERRORS: Final = 500
"""Statuses from here on count against a host's circuit; 4xx is no failure of the server."""


class Tells(Protocol):
    """Who counts that a limit kept a request from being sent."""

    def limited(self) -> None:
        """Count one."""


@dataclass
class Passing:
    """Leave to send one request to a host."""

    passage: Passage
    held: Held
    status: int | None = None


def names_of(call: api.Request | api.Download, host: str) -> tuple[str, ...]:
    """Give the levels that bind a request: the cluster, the host, its key."""
    return levels(host=host, key=call.tenant)


class Gate:
    """Thread-safe."""

    def __init__(self, limits: Limits, tells: Tells) -> None:
        """Ask these limits."""
        self.limits = limits
        self._tells = tells

    @contextmanager
    def passing(self, call: api.Request | api.Download, host: str, scope: Scope, *, first: bool) -> Iterator[Passing]:
        """Let one request to a host through, and learn from how it ends.

        `first` says that nothing was sent yet, so that the call can come back later.

        Raises:
            Later: a limit, or an open circuit, keeps it out, and the deadline allows to come back then.
            LimitExceeded, CircuitOpen: the same, and the deadline does not; or it is a hop of a redirect.
            Cancelled, DeadlineExceeded: of the call.
        """
        names = names_of(call, host)
        passage: Passage | None = None
        try:
            passage = self.limits.enter(host, if_away=OPEN)
            self.limits.admit(scope, names, if_away=OPEN)
            held = self.limits.wait_for_slots(scope, names, if_away=OPEN)
        except (LimitExceeded, CircuitOpen) as kept_out:
            self._tells.limited()
            if passage is not None:
                self.limits.abandoned(passage)
            if first and kept_out.retry_after_s < scope.remaining_s():
                raise Later(kept_out.retry_after_s) from None
            raise
        except BaseException:
            if passage is not None:
                self.limits.abandoned(passage)
            raise
        found = Passing(passage, held)
        failure: BaseException | None = None
        try:
            yield found
        except BaseException as caught:
            failure = caught
            raise
        finally:
            self.done(found, failure)

    def ask(self, names: tuple[str, ...], host: str) -> Passing | float:
        """Ask for leave without waiting; give it, or how many seconds it is in vain to ask again (`refusal`)."""
        try:
            passage = self.limits.enter(host, if_away=OPEN)
        except (LimitExceeded, CircuitOpen) as kept_out:
            return kept_out.retry_after_s
        held = self.limits.acquire(names, if_away=OPEN)
        if isinstance(held, Refused):
            self.limits.abandoned(passage)
            return held.retry_after_s
        return Passing(passage, held)

    def admit(self, names: tuple[str, ...]) -> Admitted | Refused:
        """Ask for one of the rates, without waiting."""
        return self.limits.ask(names, if_away=OPEN)

    def done(self, passing: Passing, failure: BaseException | None) -> None:
        """Give the slots back, and tell the circuit.

        Transient errors and statuses from 500 are failures; the caller's own mistakes and a full pool are nothing.
        """
        self.limits.release(passing.held)
        if isinstance(failure, Transient) and not isinstance(failure, PoolExhausted):
            self.limits.failed(passing.passage)
        elif failure is not None or passing.status is None:
            self.limits.abandoned(passing.passage)
        elif passing.status >= SERVER_ERRORS:
            self.limits.failed(passing.passage)
        else:
            self.limits.succeeded(passing.passage)


def refusal(call: api.Request, host: str, retry_after_s: float) -> GaiaError:
    """Give the error of a request that was kept out until its time was over."""
    return LimitExceeded(names_of(call, host)[-1], round(retry_after_s, 6))

"""Whether a request is worth another attempt: by its policy, what the server said, and the host's budget."""

from typing import Final

from gaia.contracts import api
from gaia.errors import GaiaError, LimitExceeded, PoolExhausted, ServerBusy
from tasks.api.incoming import Answer, retry_after_s
from tasks.limits.cluster import Limits
from tasks.scope import Clock

RETRY_AFTER_MOST_S: Final = 3600.0
"""A server that asks for more is asked again after an hour: it could shut the whole cluster out for good."""

FREE: Final = (LimitExceeded, PoolExhausted)
"""Errors of what was never sent: another attempt costs the host nothing."""


class Verdict:
    """Thread-safe."""

    def __init__(self, limits: Limits, clock: Clock | None = None) -> None:
        """Ask these limits for the budgets."""
        self._limits = limits
        self._clock = clock or Clock()

    def busy(self, call: api.Request | api.Download, answer: Answer, host: str) -> ServerBusy | None:
        """Give the error of an answer that asks to come back later, None if it is an answer; tell the cluster."""
        if answer.status not in call.retry.statuses:
            return None
        asked_s = retry_after_s(answer, self._clock.wall(), RETRY_AFTER_MOST_S)
        if asked_s:
            self._limits.hold(host, asked_s)
        return ServerBusy(host, answer.status, round(asked_s, 3))

    def again(self, call: api.Request | api.Download, error: GaiaError, host: str, attempt: int, left_s: float) -> bool:
        """Say whether there is to be another attempt; one that is comes off the host's budget."""
        if attempt >= call.retry.attempts or not call.may_retry(error):
            return False
        if getattr(error, "retry_after_s", 0.0) >= left_s:
            return False
        return isinstance(error, FREE) or self._limits.may_retry(host)

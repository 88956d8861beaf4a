"""Redis as the authority of limits, reached in bounded time.

A limit is asked for before work that has a deadline, so a Redis that is away must cost little. Connecting and a reply
have half a second each, nothing is repeated, and a circuit breaker of this process stands before it: once a call
failed, calls of the next second fail at once, then one of them tries.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import redis

from gaia.errors import Unreachable
from gaia.store.connection import connect, reaching, show_url
from tasks import metrics
from tasks.limits.memory import MemoryBreaker
from tasks.limits.protocols import Away, Refused, Rules
from tasks.limits.scripts import SCRIPTS
from tasks.scope import Clock

REPLY_BOUND_S: Final = 0.5

RULES: Final = Rules(failure_threshold=1, open_s=1.0, success_threshold=1, probe_s=5.0)

T = TypeVar("T")


class Reach:
    """The scripts of limits on one Redis. Thread-safe."""

    def __init__(self, client: "redis.Redis", url: str, *, clock: Clock | None = None) -> None:
        """Use a client whose time-outs are short; `url` is for errors."""
        self.client = client
        self._url = url
        self._breaker = MemoryBreaker(clock)
        self._scripts = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    @classmethod
    def to(cls, url: str) -> "Reach":
        """Make a client with the time-outs that limits need. It dials at the first call.

        Raises:
            InvalidSetting: if the URL is malformed.
        """
        bound_s = REPLY_BOUND_S
        return cls(connect(url, retries=0, reply_timeout_s=bound_s, connect_timeout_s=bound_s), url)

    def script(self, name: str, keys: list[str], args: list[str | int | float]) -> object:
        """Run a script.

        Raises:
            Unreachable: within `REPLY_BOUND_S` for each of connecting and replying, at once while Redis is known away.
        """
        return self.call(lambda: self._scripts[name](keys=keys, args=args))

    def call(self, act: Callable[[], T]) -> T:
        """Do something with the client; as `script`."""
        passage = self._breaker.enter("redis", RULES, if_away=Away.FAIL_CLOSED)
        if isinstance(passage, Refused):
            raise Unreachable(show_url(self._url), "it did not answer a moment ago")
        try:
            with reaching(self._url):
                found = act()
        except Unreachable:
            self._breaker.failed(passage)
            raise
        except BaseException:
            self._breaker.abandoned(passage)
            raise
        self._breaker.succeeded(passage)
        return found

    def unless_away(self, if_away: Away, act: Callable[[], T], instead: Callable[[], T]) -> T:
        """Do something with Redis; if it is away, do `instead`, or raise `Unreachable`, as was chosen."""
        try:
            return act()
        except Unreachable:
            metrics.LIMITS_AWAY.labels(if_away.value).inc()
            if if_away is Away.FAIL_CLOSED:
                raise
            return instead()

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()
        self.client.connection_pool.disconnect()

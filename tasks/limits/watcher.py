"""Keeps this process' policy that of the cluster, and tells of circuits that changed.

A daemon thread with a subscription. An announcement is acted on at once; without one the revision is read again twice a
second, so a lost announcement costs half a second. While Redis is away the last policy that was read holds, the
settings' own if there was none; after a reconnect everything is read anew.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from redis.client import PubSub
from redis.exceptions import RedisError

from config import settings
from gaia.errors import Unreachable
from gaia.store import keys, limits
from tasks.limits.policy import Policy
from tasks.limits.reach import Reach

REREAD_S: Final = 0.5
CLOSE_S: Final = 2.0

log = logging.getLogger(__name__)


class Watcher:
    """The policy in force. Thread-safe; the thread starts when the policy is first asked for."""

    def __init__(
        self,
        reach: Reach,
        defaults: settings.Limits,
        *,
        on_circuit: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """Read nothing yet. `on_circuit` is told the name of a circuit that changed, None if any may have."""
        self._reach = reach
        self._defaults = defaults
        self._on_circuit = on_circuit
        self._revision = -1
        self._policy = Policy(defaults, {})
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def policy(self) -> Policy:
        """Give the policy in force; the first call reads it, within the bounds of `Reach`."""
        if self._thread is None:
            self._start()
        return self._policy

    def close(self) -> None:
        """Stop the thread, which may take as long as a reply of Redis."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            try:
                self._read()
            except Unreachable as failure:
                log.warning("limits are those of the settings until Redis answers: %s", failure)
            self._thread = threading.Thread(target=self._run, name="gaia-limits-watcher", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                with PubSub(self._reach.client.connection_pool, ignore_subscribe_messages=True) as news:
                    news.subscribe(keys.LIMITS_CHANNEL)
                    self._on_circuit(None)
                    self._follow(news)
            except (RedisError, OSError, Unreachable) as failure:
                log.debug("watching limits was interrupted: %s", failure)
                self._closed.wait(REREAD_S)
            except Exception:
                log.exception("watching limits failed; it begins anew")
                self._closed.wait(REREAD_S)

    def _follow(self, news: PubSub) -> None:
        read_at = -REREAD_S
        while not self._closed.is_set():
            due_s = read_at + REREAD_S - time.monotonic()
            if due_s <= 0:
                self._read()
                read_at = time.monotonic()
                continue
            message = news.get_message(timeout=due_s)
            changed = message["data"].decode() if message else None
            if changed == keys.LIMIT_SETTINGS:
                read_at = -REREAD_S
            elif changed is not None:
                self._on_circuit(changed.removeprefix(keys.circuit("")))

    def _read(self) -> None:
        """Read the revision, and everything if it is another."""
        client = self._reach.client
        if self._reach.call(lambda: limits.revision(client)) != self._revision:
            revision, given = self._reach.call(lambda: limits.read(client))
            self._policy = Policy(self._defaults, given)
            self._revision = revision

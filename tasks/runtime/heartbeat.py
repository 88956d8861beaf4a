"""The thread by which a worker says that it lives, and answers what nodes that have gone left behind.

    beating -> withdrawn -> closed

The heartbeat lies in Redis and lapses by itself; if this process dies, others notice by that. Withdrawn, at the
beginning of a drain, the node is not alive to callers any more: nothing fetches from its queue. When it is closed, what
came back to its queue meanwhile is answered, too.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final

import redis
from redis.exceptions import RedisError

from gaia.store import nodes
from gaia.store.nodes import Node, Orphan

RETRY_S: Final = 0.5
"""After a beat that failed. An outage of Redis outlasts a life, so the first moment after it counts."""

ROUNDS: Final = 32
"""Answers to a few orphans each, after one beat."""

log = logging.getLogger(__name__)


class Heartbeat:
    """The heartbeat of one process."""

    def __init__(self, client: redis.Redis, node: Node, answer: Callable[[bytes], None]) -> None:
        """Beat for `node` over `client`; `answer` takes each orphaned message."""
        self._client = client
        self._node = node
        self._answer = answer
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._live, name="gaia-heartbeat", daemon=True)

    def start(self) -> None:
        """Beat once, then go on in the thread."""
        self._tell(nodes.beat)
        self._thread.start()

    def withdraw(self) -> None:
        """Take the node from the living; returns at once, so that a signal handler may call it."""
        self._leaving.set()

    def close(self) -> None:
        """End the thread, and answer what is left on the node's queue."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15)
        self._tell(nodes.leave)

    def _live(self) -> None:
        pause_s = nodes.BEAT_S
        while not self._leaving.wait(pause_s):
            pause_s = nodes.BEAT_S if self._tell(nodes.beat) else RETRY_S
        self._tell(nodes.leave)

    def _tell(self, command: Callable[[redis.Redis, Node], list[Orphan]]) -> bool:
        """Run a command and answer the orphans it gives; False if Redis did not answer."""
        try:
            found = command(self._client, self._node)
            for _ in range(ROUNDS):
                if not found:
                    break
                for _, message in found:
                    self._answer(message)
                found = nodes.orphans(self._client, found)
        except (RedisError, OSError) as failure:
            log.warning("the heartbeat failed: %s", type(failure).__name__)
            return False
        except Exception:
            # A thread that ended here would have this worker taken for dead.
            log.exception("an orphaned message could not be answered")
        return True

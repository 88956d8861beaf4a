"""Following what Redis announces, for as long as a thread lives.

An announcement that comes while nobody is connected is lost: whoever follows reads what counts anew after each
connection, or can do without what it missed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import redis
from redis.client import PubSub
from redis.exceptions import RedisError

RECONNECT_S: Final = 0.5
POLL_S: Final = 1.0
SILENCE_S: Final = 9.0
"""A subscription that answers no PING for so long is half open, and made anew."""

log = logging.getLogger(__name__)


def persist(follow: Callable[[], None], closed: threading.Event, what: str) -> None:
    """Follow again after any failure, until `closed` is set; `what` names in the log what is listened for."""
    while not closed.is_set():
        try:
            follow()
        except (RedisError, OSError):
            closed.wait(RECONNECT_S)
        except Exception:
            # Without its thread nobody would hear of anything any more.
            log.exception("listening for %s failed", what)
            closed.wait(RECONNECT_S)


def heard(pubsub: PubSub, closed: threading.Event) -> Iterator[dict[str, Any]]:
    """Give what comes on a subscription, messages of every type, until `closed` is set.

    Raises:
        RedisError, OSError: the connection broke, or fell silent.
    """
    heard_at = pinged_at = time.monotonic()
    while not closed.is_set():
        message = pubsub.get_message(timeout=POLL_S)
        now = time.monotonic()
        if message is not None:
            heard_at = now
            yield message
        # redis-py's own health check sends a PING and does not miss the answer.
        elif now - heard_at > SILENCE_S:
            raise redis.ConnectionError("no answer to PING")
        elif now - pinged_at > SILENCE_S / 3:
            pubsub.ping()
            pinged_at = now

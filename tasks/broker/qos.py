"""kombu's account of what was delivered, over the process's `Holder`; the turn script has recorded it already."""

import logging
from typing import Any, Final

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import ResponseError

log = logging.getLogger(__name__)

STOCK_EVERY: Final = 10
"""Calls of `restore_visible`, one a second, from one look for what stock workers left to the next."""


class QoS(kombu_redis.QoS):
    """Holding and releasing messages through the process's `Holder`."""

    def can_consume(self) -> bool:
        """Say whether the prefetch limit leaves room; calls that went by express count, too."""
        return not self.prefetch_count or self._out() < self.prefetch_count

    def can_consume_max_estimate(self) -> int | None:
        """Give how many messages the limit leaves room for, None if there is none."""
        return max(self.prefetch_count - self._out(), 0) if self.prefetch_count else None

    def _out(self) -> int:
        return len(self._delivered) - len(self._dirty) + len(self.channel.express)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a delivered message against the prefetch limit."""
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """End a message: its commit goes with the next turn. Any thread may call it."""
        virtual.QoS.ack(self, delivery_tag)
        self.channel.holder.end(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """End a message, or give it back behind all others."""
        virtual.QoS.ack(self, delivery_tag)
        if requeue:
            self.channel.holder.give_back([delivery_tag], "last")
        else:
            self.channel.holder.end(delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Forget what was delivered; it stays held. The holder gives it back when the worker ends."""
        del stderr
        self._on_collect.cancel()
        self._flush()
        self._delivered.clear()
        self._delivered.restored = True

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 1) -> None:
        """Restore what dead stock workers held, by the visibility timeout; ours is restored by the holder's thread."""
        try:
            super().restore_visible(start, num, interval * STOCK_EVERY)
        except ResponseError as failure:
            # A full or read-only server: kombu's timer would report each look as a defect.
            log.debug("the server refused a look for what stock workers left: %s", failure)

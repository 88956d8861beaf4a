"""kombu's account of delivered messages, kept by the process's `Holder`."""

from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual


class QoS(kombu_redis.QoS):
    """Holding and releasing messages through the process's `Holder`; the turn script has recorded them already."""

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
        """End a message: its commit goes with the next turn."""
        self.channel.holder.end(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """End a message, or give it back behind all others."""
        if requeue:
            self.channel.give_back([delivery_tag], "last")
        else:
            self.channel.holder.end(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back what is held, if the worker ends; on a mere reconnect it stays held, under the same leases."""
        del stderr
        self._on_collect.cancel()
        self._flush()
        self._delivered.clear()
        self._delivered.restored = True

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Restore the messages of dead holders: ours by their leases, a stock worker's by the visibility timeout."""
        self.channel.sweep()
        super().restore_visible(start, num, interval)

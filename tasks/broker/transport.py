"""kombu's Redis transport with leased messages, see `tasks.broker.channel`; wire-compatible with stock Celery."""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, _transport_cache
from kombu.transport import redis as kombu_redis

from tasks.broker.channel import Channel, SentinelChannel


class Poller(kombu_redis.MultiChannelPoller):
    """kombu's poller, for channels that decide themselves when to send."""

    def _update_brpop_polling(self) -> None:
        """Never pause a reply: a turn asks for no more than there is room for."""

    def on_poll_start(self) -> None:
        """Let every consuming channel send its next turn."""
        channels = list(self._channels)
        is_consuming = any(each.active_queues for each in channels)
        for channel in channels:
            if channel.active_queues:
                channel.tick()
            elif not is_consuming and channel.holder.keeper is not None:
                channel.commit_idle()
            if channel.active_fanout_queues:
                self._register_LISTEN(channel)

    def register_fetch(self, channel: Any) -> None:
        """Have the channel's fetch connection polled, and its next command sent."""
        self._register_BRPOP(channel)

    def on_readable(self, fileno: int) -> None:
        """Hand a readable socket to its channel, whatever the prefetch limit says."""
        found = self._fd_to_chan.get(fileno)
        if found is not None:
            channel, kind = found
            channel.handlers[kind]()


class Transport(kombu_redis.Transport):
    """kombu's transport over our channel."""

    Channel = Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        """Make the transport; nothing is dialled."""
        super().__init__(*args, **options)
        self.cycle = Poller()


class SentinelTransport(Transport):
    """The same behind Redis Sentinel."""

    default_port = kombu_redis.SentinelTransport.default_port
    Channel = SentinelChannel


def install() -> None:
    """Serve redis://, rediss:// and sentinel:// by these in this process; to be called before the first connection."""
    for scheme, name in (("redis", "Transport"), ("rediss", "Transport"), ("sentinel", "SentinelTransport")):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{name}"
        # What a connection made earlier has led to.
        _transport_cache.pop(scheme, None)

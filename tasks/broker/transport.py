"""kombu's Redis transport, made to survive whatever is on its lists.

kombu pops a message and then parses it; one that is no message ends the worker, and is lost. Here it is kept among
the dead letters and the worker goes on.
"""

import logging
from collections.abc import Mapping
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from gaia.store import dead

log = logging.getLogger(__name__)


class Channel(kombu_redis.Channel):
    """A channel whose fetch tells messages from garbage."""

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply of the blocking pop and deliver its message.

        Raises:
            Empty: if the wait ended without one.
        """
        try:
            reply = self._reply(options)
            if not reply:
                raise Empty
            name, item = reply
            queue = bytes_to_str(name).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self._deliver_or_park(queue, item)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _reply(self, options: dict[str, Any]) -> Any:
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, "BRPOP", **options)
        except self.connection_errors:
            connection.disconnect()  # the next turn of the loop connects anew
            raise

    def _deliver_or_park(self, queue: str, item: bytes) -> None:
        try:
            message = loads(bytes_to_str(item))
            flaw = _flaw(message)
        except (ValueError, RecursionError):
            flaw = "it is no JSON"
        if flaw is None:
            self.connection._deliver(message, queue)  # noqa: SLF001 - the transport's own door for its channels
            return
        log.error("a message on queue %s was put among the dead letters: %s", queue, flaw)
        with self.conn_or_acquire() as client:
            dead.park(client, queue=queue, reason=f"no message: {flaw}", message=bytes(item))


class Transport(kombu_redis.Transport):
    """kombu's transport over our channel."""

    Channel = Channel


def _flaw(message: object) -> str | None:
    """Say what keeps JSON from being a kombu message, None if nothing does."""
    if not isinstance(message, Mapping):
        return "it is no object"
    properties = message.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    info = properties.get("delivery_info")
    sound = {
        "it has no delivery tag": isinstance(properties.get("delivery_tag"), str),
        "it has no delivery information": isinstance(info, Mapping) and {"exchange", "routing_key"} <= set(info),
        "its body is no text": isinstance(message.get("body", ""), str),
        "it has no headers": isinstance(message.get("headers"), Mapping),
    }
    return next((flaw for flaw, holds in sound.items() if not holds), None)


def install() -> None:
    """Serve `redis://` and `rediss://` by this transport in this process; to be called before the first connection."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"

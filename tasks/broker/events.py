"""Celery's events on their way out, encoded fast: those of a busy worker cost as much as its calls otherwise."""

from typing import TYPE_CHECKING, Any

from celery.events.dispatcher import EventDispatcher

from tasks.broker import jsontext

if TYPE_CHECKING:
    from kombu.transport.redis import Channel as Base
else:
    Base = object


class _Encoded:
    """A producer that takes events as Celery's dispatcher gives them, and hands them on as JSON."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def publish(self, event: Any, *, serializer: str, **options: Any) -> Any:
        if serializer != "json":
            return self._producer.publish(event, serializer=serializer, **options)
        return self._producer.publish(
            jsontext.dumps(event), content_type="application/json", content_encoding="utf-8", **options
        )


class Dispatcher(EventDispatcher):
    """Celery's dispatcher, with another encoder (`tasks.broker.jsontext`).

    An event is sent once. Celery's heartbeat asks for retries, which have no end: they would hold the worker's loop
    until the broker is back. What could not be sent is kept, and goes with the next event.
    """

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> Any:
        del options
        # Celery keeps the event itself while the broker is away, so it is encoded behind it.
        return super()._publish(event, None if producer is None else _Encoded(producer), routing_key)


class Announcing(Base):
    """What makes a kombu Redis channel write what it publishes to all with the same encoder; mixed in."""

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **options: Any) -> None:
        if options.get("_publish_batch") is not None:
            super()._put_fanout(exchange, message, routing_key, **options)
            return
        text = jsontext.dumps(message)
        with self.conn_or_acquire() as client:
            for topic in self._get_publish_topics(exchange, routing_key):
                client.publish(topic, text)

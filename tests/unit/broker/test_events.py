"""Celery's events, encoded by ours and read by Celery's own receiver."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from celery import Celery

from tasks.broker import transport
from tests.support import cluster
from tests.support.waiting import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[cluster.Server]:
    found = cluster.Server(tmp_path)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def app(server: cluster.Server) -> Iterator[Celery]:
    transport.install()
    with Celery("gaia", broker=server.url, set_as_current=False) as found:
        found.events.dispatcher_cls = "tasks.broker.events:Dispatcher"
        yield found


class Heard:
    """What Celery's receiver hears, in a thread of its own."""

    def __init__(self, app: Celery) -> None:
        self.events: list[dict[str, Any]] = []
        self._app = app
        self._connection = app.connection_for_read()
        self._receiver = app.events.Receiver(self._connection, handlers={"*": self.events.append})
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        with redis.Redis.from_url(self._app.conf.broker_url) as client:
            until(lambda: client.pubsub_numpat() or client.pubsub_channels(), what="the subscription")
        return self

    def _listen(self) -> None:
        for _ in self._receiver.itercapture(limit=None, timeout=None, wakeup=False):
            pass

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join(30)
        self._connection.release()
        assert not self._thread.is_alive()

    def of(self, kind: str) -> dict[str, Any]:
        return until(lambda: next((each for each in self.events if each["type"] == kind), None), what=kind)


def test_celerys_receiver_hears_single_events_and_those_sent_together(app: Celery) -> None:
    with Heard(app) as heard, app.connection_for_write() as connection:
        one = app.events.Dispatcher(connection, hostname="a@b")
        one.send("worker-heartbeat", freq=2.0, note="ä\u2028")
        several = app.events.Dispatcher(connection, hostname="a@b", buffer_group={"task"})
        several.send("task-sent", uuid="x", at=datetime(2026, 1, 2, tzinfo=UTC).isoformat())
        several.send("task-received", uuid="x")
        several.flush()
        assert heard.of("worker-heartbeat")["note"] == "ä\u2028"
        assert (heard.of("task-sent")["uuid"], heard.of("task-received")["uuid"]) == ("x", "x")


def test_a_heartbeat_is_tried_once_and_sent_when_the_broker_is_back(app: Celery, server: cluster.Server) -> None:
    with app.connection_for_write() as connection:
        dispatcher = app.events.Dispatcher(connection, hostname="a@b")
        dispatcher.send("worker-online", retry=True)
        server.kill()
        dispatcher.send("worker-heartbeat", retry=True)  # Celery's own would not come back from here
        server.start()
        with Heard(app) as heard:
            dispatcher.flush()
            assert heard.of("worker-heartbeat")["hostname"] == "a@b"

"""Celery's events, encoded by ours and read by Celery's own receiver."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from celery import Celery

from tasks.broker import transport
from tests.support import cluster
from tests.support.waiting import until


def _app(url: str) -> Celery:
    transport.install()
    found = Celery("gaia", broker=url, set_as_current=False)
    found.events.dispatcher_cls = "tasks.broker.events:Dispatcher"
    return found


@pytest.fixture
def app(fresh_url: str) -> Iterator[Celery]:
    with _app(fresh_url) as found:
        yield found


class Heard:
    """What Celery's receiver hears, in a thread of its own."""

    def __init__(self, app: Celery) -> None:
        self.events: list[dict[str, Any]] = []
        self._connection = app.connection_for_read()
        self._receiver = app.events.Receiver(self._connection, handlers={"*": self.events.append})
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._receiver.on_consume_ready = lambda *_, **__: ready.set()
        self._thread.start()
        assert ready.wait(30)
        return self

    def _listen(self) -> None:
        for _ in self._receiver.itercapture(limit=None, timeout=None, wakeup=False):
            if self._ended.is_set():
                break

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._ended.set()
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


def test_a_heartbeat_is_tried_once_and_sent_when_the_broker_is_back(tmp_path: Path) -> None:
    server = cluster.Server(tmp_path)
    server.start()
    try:
        with _app(server.url) as app, app.connection_for_write() as connection:
            dispatcher = app.events.Dispatcher(connection, hostname="a@b")
            dispatcher.send("worker-online", retry=True)
            server.kill()
            dispatcher.send("worker-heartbeat", retry=True)  # Celery's own would not come back from here
            server.start()
            with Heard(app) as heard:
                dispatcher.flush()
                assert heard.of("worker-heartbeat")["hostname"] == "a@b"
    finally:
        server.stop()

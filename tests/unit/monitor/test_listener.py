"""What is heard, message by message, by a clock that the test holds."""

import json
from collections.abc import Iterator

import pytest

from tasks.monitor.calls import Calls
from tasks.monitor.listener import LAG_SPAN_S, Listener
from tasks.monitor.series import Book
from tasks.scope import Clock


class Ear:
    def __init__(self, url: str) -> None:
        self.now, self.book = 1000.0, Book()
        clock = Clock(monotonic=lambda: self.now, wall=lambda: self.now)
        self.listener = Listener(url, Calls(self.book, clock), self.book, clock)

    def hear(self, *events: object) -> None:
        self.listener._hear(json.dumps({"body": json.dumps(list(events)), "properties": {}}).encode())

    def beat(self, *, late_s: float = 0.0) -> None:
        self.hear({"type": "worker-heartbeat", "hostname": "w@vm", "timestamp": self.now - late_s})


@pytest.fixture
def ear(fresh_url: str) -> Iterator[Ear]:
    found = Ear(fresh_url)
    yield found
    found.listener._client.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"7",
        b'{"body": "[]", "properties": null}',
        b'{"body": null}',
        b'{"body": "x"}',
        b'{"body": "[[[{}]]]"}',
        b'{"body": "[{\\"type\\": \\"worker-heartbeat\\", \\"hostname\\": 1, \\"timestamp\\": 1' + b"0" * 400 + b'}]"}',
        b'{"body": "[{\\"type\\": \\"worker-heartbeat\\", \\"hostname\\": 1, \\"active\\": NaN}]"}',
    ],
)
def test_a_message_that_makes_no_sense_is_no_reason_to_stop_hearing(ear: Ear, data: bytes) -> None:
    ear.listener._hear(data)
    ear.beat()
    assert b'gaia_monitor_events_total{type="worker-heartbeat"}' in ear.book.text()


def test_the_latest_event_of_a_minute_is_told_of_and_then_forgotten(ear: Ear) -> None:
    ear.beat(late_s=60)
    for _ in range(10):
        ear.beat(late_s=0.1)
    assert ear.listener.lag_s() == pytest.approx(60)
    ear.now += LAG_SPAN_S + 1
    ear.beat(late_s=0.1)
    assert ear.listener.lag_s() == pytest.approx(60)
    ear.now += LAG_SPAN_S + 1
    assert ear.listener.lag_s() == pytest.approx(0.1)
    ear.now += 3 * LAG_SPAN_S
    assert ear.listener.lag_s() == 0

"""The short way of a plain message, up to the thread. What runs, and how it ends: tests/integration/test_express.py."""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task, signals
from celery.worker import state
from kombu.serialization import dumps
from kombu.transport import TRANSPORT_ALIASES

import gaia.message
from gaia import wire
from gaia.store import keys
from tasks.broker import holders, transport
from tasks.broker.backend import Backend
from tasks.broker.channel import Channel
from tasks.runtime.express import Express, ExpressRequest
from tasks.runtime.request import RedactedRequest
from tests.support.probe import Echo

SECRET = "s3cr3t-token-of-mine"


class Taken:
    """A pool that keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def put(self, call: Callable[[], object]) -> None:
        self.calls.append(call)

    @property
    def request(self) -> ExpressRequest:
        (call,) = self.calls
        found: ExpressRequest = call.__self__  # type: ignore[attr-defined]  # a bound method
        return found


@pytest.fixture
def app(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    for scheme in ("redis", "rediss"):
        monkeypatch.setitem(TRANSPORT_ALIASES, scheme, TRANSPORT_ALIASES[scheme])
    transport.install()
    with Celery("express", broker=fresh_url, backend=fresh_url, set_as_current=False) as found:
        found.conf.update(wire.SHARED_OPTIONS)
        found.loader.override_backends = {"redis": "tasks.broker.backend:Backend"}
        yield found


@pytest.fixture
def express(app: Celery) -> Iterator[Express]:
    """An express over a real channel; nothing is fetched."""
    app.register_task(type("Echoes", (Task,), {"name": "probe.echo", "acks_late": True, "perform": None})())
    with app.connection_for_read() as connection, connection.channel() as channel:
        assert isinstance(channel, Channel)
        consumer = SimpleNamespace(
            app=app,
            task_buckets=defaultdict(lambda: None),
            on_task_message=set(),
            event_dispatcher=None,
            hostname="me@here",
            connection_errors=(),
        )
        pool: Any = Taken()
        consumer.express = Express(consumer, pool, channel)
        yield consumer.express
    state.requests.clear()
    state.reserved_requests.clear()


@pytest.fixture
def pool(express: Express) -> Taken:
    found: Taken = express._put.__self__  # type: ignore[attr-defined]  # a bound method
    return found


def message(**headers: Any) -> dict[str, Any]:
    call = Echo("hi", token=SECRET)
    text = gaia.message.text_of(
        call, call.fields_json(), call_id="an-id", envelope=wire.Envelope(), priority=0, expires_at=None, stored=True
    )
    found: dict[str, Any] = json.loads(text)
    found["headers"] |= headers
    return found


def with_body(body: object) -> dict[str, Any]:
    found = message()
    found["body"] = body if isinstance(body, str) else json.dumps(body)
    found["properties"]["body_encoding"] = "utf-8"
    return found


EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def test_a_message_of_our_client_is_plain(express: Express, pool: Taken) -> None:
    assert express.take(message())
    request = pool.request
    assert (request.id, request.name, request.tag) == ("an-id", "probe.echo", "an-id")
    assert state.requests["an-id"] is request
    assert request in state.reserved_requests
    assert express.channel.express == {"an-id": request}


def test_a_message_of_a_stock_producer_is_plain(express: Express, pool: Taken, app: Celery) -> None:
    made = app.amqp.as_task_v2("an-id", "probe.echo", kwargs={"text": "hi"})
    content_type, encoding, body = dumps(made.body, "json")
    raw = {
        **with_body(body),
        "headers": made.headers,
        "content-type": content_type,
        "content-encoding": encoding,
    }
    assert express.take(raw)
    assert pool.request._fields == {"text": "hi"}


@pytest.mark.parametrize(
    "headers",
    [
        {"eta": "2030-01-01T00:00:00+00:00"},
        {"expires": "2030-01-01T00:00:00+00:00"},
        {"group": "g"},
        {"shadow": "another name"},
        {"stamped_headers": ["s"]},
        {"compression": "application/x-gzip"},
        {"timelimit": [1, None]},
        {"retries": "many"},
        {"retries": True},
        {"id": None},
        {"task": "probe.unknown"},
    ],
)
def test_what_celery_has_a_rule_for_goes_its_way(express: Express, pool: Taken, headers: dict[str, Any]) -> None:
    assert not express.take(message(**headers))
    assert pool.calls == []
    assert express.channel.express == {}
    assert "an-id" not in state.requests


@pytest.mark.parametrize(
    "body",
    [
        [["positional"], {}, EMBED],
        [[], {}, {**EMBED, "callbacks": [{"task": "x"}]}],
        [[], {}, {**EMBED, "chain": [{"task": "x"}]}],
        [[], {}, {**EMBED, "chord": {"task": "x"}}],
        [[], {"x": {"__type__": "uuid", "__value__": "1"}}, EMBED],
        [[], 7, EMBED],
        [[], [], EMBED],
        [[], None, EMBED],
        f"[[], {{}}, {{}}, {json.dumps(EMBED)}]",
        f"[[], {{, {json.dumps(EMBED)}]",
        f"[[], {'[' * 100_000}, {json.dumps(EMBED)}]",
        [],
        {},
        "",
        "no JSON",
    ],
    ids=lambda each: str(each)[:60],
)
def test_a_body_that_holds_more_than_fields_goes_celerys_way(express: Express, body: object) -> None:
    assert not express.take(with_body(body))


@pytest.mark.parametrize("part", ["content-type", "content-encoding"])
@pytest.mark.parametrize("value", [None, "application/x-python-serialize", "binary"])
def test_another_serialization_goes_celerys_way(express: Express, part: str, value: str | None) -> None:
    assert not express.take({**message(), part: value})
    without = message()
    del without[part]
    assert not express.take(without)


def test_base64_that_holds_no_text_goes_celerys_way(express: Express) -> None:
    assert not express.take({**message(), "body": "/////w=="})


def test_a_revoked_call_goes_celerys_way(express: Express) -> None:
    state.revoked.add("an-id")
    try:
        assert not express.take(message())
    finally:
        state.revoked.discard("an-id")


def test_a_rate_limited_operation_goes_celerys_way(express: Express) -> None:
    express.consumer.task_buckets["probe.echo"] = object()
    assert not express.take(message())


@pytest.mark.parametrize("signal", ["task_received", "task_prerun", "task_postrun", "task_success", "task_failure"])
def test_while_somebody_is_connected_to_a_signal_every_call_goes_celerys_way(express: Express, signal: str) -> None:
    def hear(**_: Any) -> None: ...

    connected = getattr(signals, signal)
    connected.connect(hear)
    try:
        assert not express.take(message())
    finally:
        connected.disconnect(hear)
    assert express.take(message())


def test_a_request_shows_the_same_as_celerys_does(express: Express, pool: Taken) -> None:
    raw = message(parent_id="its-parent")
    express.take(raw)
    request = pool.request
    stock = RedactedRequest(
        express.channel.Message(raw, channel=express.channel), app=express.app, hostname="me@here", task=request.task
    )
    for name in ("argsrepr", "kwargsrepr", "parent_id", "root_id", "args", "kwargs", "time_limits", "reply_to", "utc"):
        assert getattr(request, name) == getattr(stock, name), name
    assert request.info() == stock.info()
    assert request.request_dict == stock.request_dict
    assert request.info()["kwargs"] == "{'text': 'hi', 'token': '***'}"
    assert SECRET not in repr(request)


def test_a_request_is_not_read_before_somebody_asks(express: Express, pool: Taken) -> None:
    express.take(message())
    assert not pool.request._is_read
    assert pool.request.args == []
    assert pool.request._is_read
    with pytest.raises(AttributeError):
        _ = pool.request.no_such_thing


def test_an_end_is_a_commit_and_makes_room(express: Express, pool: Taken) -> None:
    held = express.channel.holder
    held.fetched("an-id", "fence", 1e9, message())
    express.take(message())
    pool.request.acknowledge()
    pool.request.acknowledge()
    assert [each.tag for each in held.take_commits()] == ["an-id"]
    assert express.channel.express == {}


def test_what_waits_long_for_a_thread_goes_and_leaves_nothing(express: Express, pool: Taken) -> None:
    held = express.channel.holder
    held.fetched("an-id", "fence", 1e9, message())
    express.take(message())
    express.relieve()
    assert held.held() == ["an-id"]
    request = pool.request
    held.wait(request.tag, request.waits_since - 60)
    started = state.total_count["probe.echo"]
    express.relieve()
    assert (held.held(), express.channel.express) == ([], {})
    assert (state.requests.get("an-id"), len(state.reserved_requests)) == (None, 0)
    held.fetched("an-id", "another", 1e9, message())
    express.take(message())
    request.run()
    assert not held.has_commits
    assert state.total_count["probe.echo"] == started
    (again,) = state.reserved_requests
    assert state.requests["an-id"] is again is not request


def test_the_prefetch_limit_counts_what_went_by_express(express: Express) -> None:
    qos = express.channel.qos
    qos.prefetch_count = 1
    assert (qos.can_consume(), qos.can_consume_max_estimate()) == (True, 1)
    express.take(message())
    assert (qos.can_consume(), qos.can_consume_max_estimate()) == (False, 0)
    qos.prefetch_count = 0
    assert (qos.can_consume(), qos.can_consume_max_estimate()) == (True, None)


def test_the_received_line_holds_no_secret(app: Celery, express: Express, caplog: pytest.LogCaptureFixture) -> None:
    express._logs_received = True
    with caplog.at_level(logging.INFO, "celery.worker.strategy"):
        express.take(message())
    (record,) = caplog.records
    assert record.getMessage() == "Task probe.echo[an-id] received"
    assert record.data["kwargs"] == "{'text': 'hi', 'token': '***'}"  # type: ignore[attr-defined]  # Celery's extra


@pytest.mark.parametrize(("key", "kept_s"), [(None, wire.RESULT_TTL_S), ("order-7", keys.KEY_TTL_S)])
def test_the_stored_text_is_the_one_that_celery_writes(app: Celery, key: str | None, kept_s: int) -> None:
    backend = app.backend
    assert isinstance(backend, Backend)
    held = holders.of(app.connection_for_read().as_uri(include_password=True))
    held.fetched("a-tag", "fence", 1e9, {})
    header = {"v": 1} if key is None else {"v": 1, "key": key}
    headers = {"id": "an-id", "parent_id": "its-parent", "gaia": header}
    request = SimpleNamespace(properties={"delivery_tag": "a-tag"}, chord=None, children=[], group=None, **headers)
    found = []
    for store in (
        lambda: backend.succeed("a-tag", headers, b'{"n": 1}'),
        lambda: backend.store_result("an-id", {"n": 1}, "SUCCESS", request=request),
    ):
        assert store()
        stored_under, text, ttl_s = held._results.pop("a-tag")
        assert ttl_s == kept_s
        meta = json.loads(text)
        assert meta.pop("date_done").endswith("+00:00")
        found.append((stored_under, list(meta), meta))
    held.give_back(["a-tag"], "last")
    assert found[0] == found[1]


def test_a_result_of_a_message_that_is_not_held_waits_for_no_commit(app: Celery) -> None:
    backend = app.backend
    assert isinstance(backend, Backend)
    assert not backend.succeed("no-tag", {"id": "an-id"}, b"{}")

"""The channel on a real server, driven by kombu's own loop, without Celery."""

import json
import time
from collections.abc import Iterator

import pytest
import redis
from kombu import Connection, Exchange, Producer

from gaia.store import keys
from tasks import metrics
from tasks.broker import channel as channel_module
from tests.support.waiting import until
from tests.unit.broker.conftest import TRANSPORT, Broker, held, text

STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")


@pytest.fixture
def no_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a push of the server ends the wait."""
    monkeypatch.setattr(channel_module, "RECHECK_S", 3600.0)


def calls(client: "redis.Redis", command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


# --- fetching and committing


def test_an_acknowledged_message_is_committed(broker: Broker, client: "redis.Redis") -> None:
    client.lpush("q", text("a"))
    broker.consume().receive(1)
    assert held(client) == (1, 1, 1)
    broker.received[0].ack()
    broker.pump(lambda: held(client) == (0, 0, 0), "the commit")
    assert client.llen("q") == 0


def test_a_rejected_message_goes_and_a_requeued_one_comes_again(broker: Broker, client: "redis.Redis") -> None:
    client.lpush("q", text("a"), text("b"))
    broker.consume(prefetch=2)
    assert broker.receive(2) == ["a", "b"]
    broker.received[0].requeue()
    broker.received[1].reject()
    assert broker.receive(3)[2] == "a"
    broker.received[2].ack()
    broker.pump(lambda: held(client) == (0, 0, 0), "the commits")


@pytest.mark.parametrize("prefetch", [1, 3])
def test_no_more_than_the_prefetch_limit_is_taken(broker: Broker, client: "redis.Redis", prefetch: int) -> None:
    client.lpush("q", *(text() for _ in range(10)))
    broker.consume(prefetch=prefetch).receive(prefetch)
    client.lpush("q", text())
    broker.idle()
    assert len(broker.received) == prefetch
    assert held(client) == (prefetch, prefetch, prefetch)
    assert client.llen("q") == 11 - prefetch
    broker.received[0].ack()
    broker.receive(prefetch + 1)


def test_a_consumer_that_acknowledges_nothing_leaves_nothing_held(broker: Broker, client: "redis.Redis") -> None:
    client.lpush("q", text(), text())
    broker.consume(no_ack=True).receive(2)
    broker.pump(lambda: held(client) == (0, 0, 0), "the commits")


def test_an_empty_queue_is_a_time_out_and_no_event(broker: Broker) -> None:
    """kombu's mailbox counts every return of drain_events as an answer."""
    broker.consume()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            broker.connection.drain_events(timeout=0.1)


def test_priorities_and_queues_are_all_served(broker: Broker, client: "redis.Redis") -> None:
    for queue in ("q", "r"):
        for step in reversed(STEPS):
            client.lpush(queue + step, text(f"{queue}{step[2:] or 0}", queue))
    tags = broker.consume("q", "r").receive(8)
    assert [each[1] for each in tags] == ["0", "0", "3", "3", "6", "6", "9", "9"]


def test_a_message_for_a_queue_that_is_no_longer_consumed_goes_back(broker: Broker, client: "redis.Redis") -> None:
    broker.consume("q", "r").wait_armed()
    broker.consumer.cancel_by_queue("r")
    client.lpush("r", text("kept", "r"))
    client.lpush("q", text("a"))
    assert broker.receive(1) == ["a"]
    broker.received[0].ack()
    broker.pump(lambda: held(client) == (0, 0, 0), "the commit")
    assert client.llen("r") == 1


# --- waiting


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("queue", ["q", "r"])
def test_a_push_to_any_list_ends_the_wait(
    broker: Broker, client: "redis.Redis", no_recheck: None, queue: str, step: str
) -> None:
    broker.consume("q", "r").wait_armed()
    client.lpush(queue + step, text("a", queue))
    assert broker.receive(1) == ["a"]


def test_the_wait_is_ended_again_and_again(broker: Broker, client: "redis.Redis", no_recheck: None) -> None:
    broker.consume()
    for number in range(1, 20):
        if number % 2:
            broker.wait_armed()
        client.lpush("q", text())
        broker.receive(number)


def test_a_peers_commits_do_not_end_the_wait(
    broker: Broker, client: "redis.Redis", fresh_url: str, no_recheck: None
) -> None:
    broker.consume("q").wait_armed()
    client.config_resetstat()
    peer = Broker(fresh_url).consume("other")
    client.lpush("other", *(text(queue="other") for _ in range(5)))
    peer.receive(5)
    armed = calls(client, "exists")
    while peer.received:
        peer.received.popleft().ack()
    peer.pump(lambda: held(client) == (0, 0, 0), "the peer's commits")
    peer.close()
    broker.idle()
    assert broker.channel._state == "waiting"
    assert calls(client, "exists") <= armed + 2  # the peer's own arming
    client.lpush("q", text("a"))
    assert broker.receive(1) == ["a"]


def test_a_change_that_pushes_nothing_is_seen_by_the_next_look(
    broker: Broker, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "RECHECK_S", 0.2)
    client.sadd(keys.PAUSED, "q")
    broker.consume().wait_armed()
    client.lpush("q", text("a"))
    broker.idle()
    assert not broker.received
    client.srem(keys.PAUSED, "q")
    assert broker.receive(1) == ["a"]


def test_a_paused_queue_that_is_full_does_not_keep_the_loop_busy(broker: Broker, client: "redis.Redis") -> None:
    client.sadd(keys.PAUSED, "q")
    client.lpush("q", text(), text())
    broker.consume()
    client.config_resetstat()
    broker.idle(2)
    assert calls(client, "evalsha") + calls(client, "exists") < 40


@pytest.fixture
def user(client: "redis.Redis", valkey: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A user who may do all but one thing; give their URL."""
    name = "limited"
    client.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", "~*", "&*", "+@all", request.param)
    database = client.get_connection_kwargs()["db"]
    host = valkey.rpartition("@")[2].partition("/")[0]
    yield f"redis://{name}:secret@{host}/{database}"
    client.execute_command("ACL", "DELUSER", name)


@pytest.mark.parametrize("user", ["-client|tracking", "-client|caching", "-client"], indirect=True)
@pytest.mark.timeout(40)
def test_where_tracking_is_refused_the_wait_still_takes_nothing_off_the_lists(
    user: str, client: "redis.Redis", holders: None
) -> None:
    broker = Broker(user).consume("q", "r")
    try:
        broker.idle()
        client.lpush("r" + STEPS[2], text("a", "r"))
        assert broker.receive(1) == ["a"]
        broker.received[0].ack()
        broker.pump(lambda: held(client) == (0, 0, 0), "the commit")
    finally:
        broker.close()


def test_a_suspect_waits_for_another_unless_its_time_is_over(broker: Broker, client: "redis.Redis") -> None:
    late = {"task": "q.x", "id": "late", "gaia": {"v": 1, "deadline": 1.0}}
    for tag in ("runs", "waits", "late"):
        client.set(keys.LOST + tag, 2)
    client.lpush("q", text("runs"), text("waits"), text("late", headers=late))
    assert broker.consume().receive(1) == ["runs", "late"]
    assert client.hexists(keys.DELAYED_MESSAGES, "waits")  # before the suspect can take it along
    for each in list(broker.received):
        each.ack()
    assert broker.receive(3)[2] == "waits"


# --- what goes wrong


def test_a_server_that_forgot_the_script_is_given_it_again(
    broker: Broker, client: "redis.Redis", no_recheck: None
) -> None:
    broker.consume()
    for number in range(1, 6):
        broker.wait_armed()
        client.script_flush()
        client.lpush("q", text())
        broker.receive(number)
        client.script_flush()
        broker.received[-1].ack()
        broker.pump(lambda: held(client) == (0, 0, 0), "the commit")


def test_a_message_is_told_to_be_fetched_when_its_turn_was_sent_however_late_that_is_read(
    broker: Broker, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation between the two is in no mark that the turn brought: the listener must have been there before."""
    sent: list[float] = []
    broker.consume()
    send_turn = broker.channel._send_turn

    def noted(connection: object) -> None:
        send_turn(connection)
        sent.append(time.monotonic())

    monkeypatch.setattr(broker.channel, "_send_turn", noted)
    client.lpush("q", text("a"))
    broker.receive(1)
    assert broker.received[0].properties["gaia_at"] < sent[-1]


def test_over_a_new_connection_what_runs_is_committed_and_not_run_again(
    broker: Broker, client: "redis.Redis", fresh_url: str
) -> None:
    client.lpush("q", text("a"), text("b"))
    broker.consume(prefetch=2).receive(2)
    client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises((redis.ConnectionError, OSError)):
        broker.pump(lambda: False, timeout_s=10)
    broker.received[0].ack()  # while there is no connection
    broker.close()
    assert held(client)[0] >= 1
    later = Broker(fresh_url).consume(prefetch=2)
    later.pump(lambda: held(client) == (1, 1, 1), "the commit of the first")
    broker.received[1].ack()
    later.pump(lambda: held(client) == (0, 0, 0), "the commit of the second")
    assert not later.received
    later.close()


def test_a_refused_turn_is_sent_again_at_a_bounded_pace(broker: Broker, client: "redis.Redis") -> None:
    client.lpush("q", text("a"))
    broker.consume().receive(1)
    client.config_resetstat()
    client.config_set("min-replicas-to-write", 1)
    try:
        broker.received[0].ack()
        broker.idle(2)
        assert calls(client, "evalsha") + calls(client, "eval") < 20
    finally:
        client.config_set("min-replicas-to-write", 0)
    broker.pump(lambda: held(client) == (0, 0, 0), "the commit")


MISSHAPEN = {
    "no JSON": b'"delivery_tag": "x"',
    "a list": b'["delivery_tag", {"delivery_tag": "x"}]',
    "no properties": b'{"headers": {"delivery_tag": "x"}}',
    "a type of kombu's, misused": text(headers={"task": "q.x", "z": {"__type__": "uuid", "__value__": 7}}),
    "a decimal that is none": text(headers={"task": "q.x", "z": {"__type__": "decimal", "__value__": "x"}}),
    "bytes that are none": text(headers={"task": "q.x", "z": {"__type__": "bytes", "__value__": 7}}),
    "a type that is no name": text(headers={"task": "q.x", "z": {"__type__": [], "__value__": 7}}),
    "a deadline beyond all floats": text(headers={"task": "q.x", "id": "i", "gaia": {"v": 1, "deadline": 10**400}}),
    "an encoding nobody knows": text().replace(b'"base64"', b'"rot13"'),
    "no base64": text(body="!"),
    "a tag that is no text": text("a").replace(b'"delivery_tag": "a"', b'"delivery_tag": "\xff\xfe"'),
    "a tag elsewhere than in the properties": json.dumps(
        {"properties": json.loads(text("b"))["properties"], "headers": {"task": "q.x", "delivery_tag": "c"}, "body": ""}
    ).encode(),
    "no delivery information": text(properties={"delivery_tag": "x", "correlation_id": "x"}),
    "an eta before all times": text(headers={"task": "q.x", "id": "i", "eta": "0001-01-01T00:00:00+14:00"}),
    "an eta after all times": text(headers={"task": "q.x", "id": "i", "eta": "9999-12-31T23:59:59-14:00"}),
}


@pytest.mark.parametrize("message", MISSHAPEN.values(), ids=MISSHAPEN.keys())
def test_a_misshapen_message_harms_neither_the_loop_nor_its_neighbours(
    broker: Broker, client: "redis.Redis", message: bytes
) -> None:
    client.lpush("q", text("before"), message, text("after"))
    broker.consume(prefetch=3)
    broker.pump(lambda: {"before", "after"} <= {each.delivery_tag for each in broker.received}, "the neighbours")
    for each in broker.received:
        each.ack()
    broker.pump(lambda: held(client) == (0, 0, 0), "that nothing is held")
    assert client.llen("q") == 0


# --- closing


def test_closing_commits_what_has_ended(broker: Broker, client: "redis.Redis") -> None:
    client.lpush("q", text("a"))
    broker.consume().receive(1)
    broker.received[0].ack()
    broker.close()
    assert held(client) == (0, 0, 0)


def test_closing_after_the_consumer_was_cancelled_commits_too(broker: Broker, client: "redis.Redis") -> None:
    """As Celery does at its end: it cancels first."""
    client.lpush("q", text("a"))
    broker.consume().receive(1)
    broker.consumer.cancel()
    broker.received[0].ack()
    broker.close()
    assert held(client) == (0, 0, 0)


def test_closing_keeps_what_runs_unless_the_worker_ends(broker: Broker, client: "redis.Redis") -> None:
    client.lpush("q", text("a"))
    broker.consume().receive(1)
    broker.close()
    assert held(client) == (1, 1, 1)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_worker_that_ends_gives_back_what_it_holds(broker: Broker, client: "redis.Redis", cancelled: bool) -> None:
    client.lpush("q", text("a"), text("b"))
    broker.consume(prefetch=2).receive(2)
    if cancelled:
        broker.consumer.cancel()
    broker.close()
    broker.holder.close()
    assert held(client) == (0, 0, 0)
    assert [json.loads(each)["headers"]["id"] for each in client.lrange("q", 0, -1)] == ["b", "a"]
    assert not client.exists(keys.LOST + "a", keys.LOST + "b")


def test_what_a_server_refuses_to_take_back_is_taken_later_and_was_not_lost(
    broker: Broker, client: "redis.Redis"
) -> None:
    client.lpush("q", text("a"), text("b"))
    broker.consume(prefetch=2).receive(2)
    failures = metrics.BROKER_FAILURES.labels("upkeep")._value
    before = failures.get()
    client.config_set("min-replicas-to-write", 1)
    try:
        broker.holder.give_back(broker.holder.held(), "next")
        until(lambda: failures.get() > before, what="a refusal")
        assert len(broker.holder.returning()) == 2
    finally:
        client.config_set("min-replicas-to-write", 0)
    until(lambda: client.llen("q") == 2, what="the messages on their list")
    assert held(client) == (0, 0, 0)
    assert not client.exists(keys.LOST + "a", keys.LOST + "b")


# --- compatible with stock


def test_a_stock_producers_messages_of_every_priority_arrive(broker: Broker, fresh_url: str) -> None:
    with Connection(fresh_url) as stock:
        assert "tasks" not in type(stock.transport).__module__
        producer = Producer(stock.default_channel, Exchange(""), routing_key="q")
        for priority in range(10):
            producer.publish({"n": priority}, priority=priority)
    broker.consume(prefetch=10).receive(10)
    assert sorted(each.payload["n"] for each in broker.received) == list(range(10))


def test_what_ours_publish_and_give_back_a_stock_consumer_reads(
    broker: Broker, client: "redis.Redis", fresh_url: str
) -> None:
    producer = Producer(broker.connection.default_channel, Exchange(""), routing_key="q")
    producer.publish({"n": 1}, priority=6)
    broker.consume().receive(1)
    broker.received[0].requeue()
    broker.close()
    with Connection(fresh_url) as stock, stock.SimpleQueue("q") as queue:
        message = queue.get(timeout=10)
        message.ack()
    assert message.payload == {"n": 1}


def test_everything_lies_under_a_global_prefix(fresh_url: str, client: "redis.Redis", holders: None) -> None:
    broker = Broker(fresh_url, global_keyprefix="pre:")
    with Connection(fresh_url, transport_options={"global_keyprefix": "pre:"}) as stock:
        producer = Producer(stock.default_channel, Exchange(""), routing_key="q")
        for priority in (0, 3, 6, 9):
            producer.publish({"n": priority}, priority=priority)
    broker.consume(prefetch=4).receive(4)
    assert held(client, "pre:") == (4, 4, 4)
    broker.received[0].requeue()
    broker.receive(5)
    for each in list(broker.received)[1:]:
        each.ack()
    broker.pump(lambda: held(client, "pre:") == (0, 0, 0), "the commits")
    broker.close()
    assert held(client) == (0, 0, 0)
    assert all(each.startswith(b"pre:") for each in client.scan_iter("*"))


def test_the_transport_is_named_by_its_path(broker: Broker) -> None:
    assert type(broker.connection.transport).__module__ == TRANSPORT.partition(":")[0]

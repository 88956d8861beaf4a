"""Delay, pause, dead letters, lost workers, bulk: what happens to a call besides being performed."""

import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from celery import Celery

from gaia import Gaia, errors
from gaia.store import keys
from gaia.store.scripts import script
from tests.support import cluster
from tests.support.cluster import Worker
from tests.support.probe import Append, Echo, Fail, Flaky, Hold, Sleepy, Snooze
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def _resumed(gaia: Gaia) -> Iterator[None]:
    yield
    for name in gaia.queues.paused():
        gaia.queues.resume(name)
    for each in gaia.dead.ids():
        gaia.dead.drop(each)


def test_a_delayed_call_waits_in_redis_and_runs_at_its_time(gaia: Gaia, probe_worker: Worker) -> None:
    began = time.time()
    pending = gaia.submit(Echo("later"), delay=timedelta(seconds=0.7))
    assert gaia.queues.delayed() == 1
    assert pending.get(timeout=20).text == "later"
    assert time.time() - began >= 0.7
    assert gaia.queues.delayed() == 0


def test_an_eta_in_the_past_runs_at_once(gaia: Gaia, probe_worker: Worker) -> None:
    assert gaia.submit(Echo("now"), eta=datetime.now(UTC) - timedelta(days=1)).get(timeout=20).text == "now"


def test_a_stock_countdown_waits_in_redis_not_in_the_worker(
    gaia: Gaia, client: redis.Redis, redis_url: str, probe_worker: Worker
) -> None:
    with Celery("foreign", broker=redis_url, backend=redis_url, set_as_current=False) as foreign:
        sent = foreign.send_task("probe.echo", kwargs={"text": "counted down"}, queue="probe", countdown=1.0)
        until(lambda: gaia.queues.delayed() == 1)
        assert client.hlen("unacked") == 0
        assert sent.get(timeout=20) == {"text": "counted down"}


def test_a_snooze_gives_the_slot_back_and_burns_no_attempt(gaia: Gaia, probe_worker: Worker, tmp_path: Path) -> None:
    seen = gaia.submit(Snooze(str(tmp_path / "marks"), times=2)).get(timeout=20)
    assert (seen.text, seen.attempts) == ("rested", 1)


@pytest.mark.parametrize("key", [None, "delayed"])
def test_a_delayed_call_that_is_cancelled_ends_at_once_and_leaves_nothing(
    gaia: Gaia, client: redis.Redis, key: str | None
) -> None:
    pending = gaia.submit(Echo("never"), delay=3 * 86_400, idempotency_key=key)
    for _ in range(2):
        pending.cancel()
    with pytest.raises(errors.Cancelled):
        pending.get(timeout=0)
    assert client.exists(keys.DELAYED, keys.DELAYED_MESSAGES) == 0
    assert client.ttl(keys.cancel(pending.id)) > 3 * 86_400
    assert client.ttl(keys.result(pending.id)) > 0
    if key is not None:
        assert gaia.submit(Echo("never"), idempotency_key=key).id == pending.id
        assert client.ttl(keys.idempotency(key)) <= keys.KEY_TTL_S


def test_a_call_between_two_runs_that_is_cancelled_ends_at_once(
    gaia: Gaia, probe_worker: Worker, tmp_path: Path
) -> None:
    pending = gaia.submit(Snooze(str(tmp_path / "marks"), times=1, pause_s=600))
    until(gaia.queues.delayed)
    pending.cancel()
    with pytest.raises(errors.Cancelled):
        pending.get(timeout=0)
    assert gaia.queues.delayed() == 0


def test_a_call_cancelled_while_it_runs_does_not_wait_for_another_run(
    gaia: Gaia, probe_worker: Worker, marks: tuple[str, str]
) -> None:
    pending = gaia.submit(Sleepy(*marks, pause_s=600))
    until(Path(marks[0]).exists)
    pending.cancel()
    Path(marks[1]).touch()
    with pytest.raises(errors.Cancelled):
        pending.get(timeout=20)
    assert gaia.queues.delayed() == 0


def test_a_stock_countdown_that_is_cancelled_ends_when_it_is_due(
    gaia: Gaia, redis_url: str, probe_worker: Worker
) -> None:
    with Celery("foreign", broker=redis_url, set_as_current=False) as foreign:
        sent = foreign.send_task("probe.echo", kwargs={"text": "x"}, queue="probe", countdown=1.5)
    until(gaia.queues.delayed)
    gaia.cancel(sent.id)
    with pytest.raises(errors.Cancelled):
        gaia.pending(sent.id, Echo).get(timeout=20)


def test_a_delayed_call_expires_after_its_time(gaia: Gaia, client: redis.Redis, probe_worker: Worker) -> None:
    client.sadd(keys.PAUSED, "probe")
    pending = gaia.submit(Echo("never"), delay=0.3, expires=0.3, deadline=60)
    in_time = gaia.submit(Echo("in time"), delay=0.3, expires=50, deadline=60)
    until(lambda: gaia.queues.delayed() == 0)
    ends_at = time.time() + 0.5
    until(lambda: time.time() > ends_at)
    client.srem(keys.PAUSED, "probe")
    with pytest.raises(errors.Expired):
        pending.get(timeout=20)
    assert in_time.get(timeout=20).text == "in time"


@pytest.mark.parametrize("name", ["probe", "probe.echo"])
def test_a_call_held_up_by_a_pause_ends_at_once_when_it_is_cancelled(
    gaia: Gaia, client: redis.Redis, probe_worker: Worker, name: str
) -> None:
    client.sadd(keys.PAUSED, name)
    pending = [gaia.submit(Echo(str(number)), priority=number % 10) for number in range(250)]
    if name != "probe":
        until(lambda: client.llen(keys.aside(name)) == 250)
    for each in (pending[0], pending[120], pending[249]):
        each.cancel()
        with pytest.raises(errors.Cancelled):
            each.get(timeout=0)
    assert script(client, "resume")(keys=[keys.PAUSED, keys.aside(name)], args=[name]) in {0, 247}
    others = [each for number, each in enumerate(pending) if number not in {0, 120, 249}]
    assert len([each.get(timeout=20) for each in others]) == 247


def test_a_cancel_whose_end_cannot_be_stored_names_that_store_and_keeps_the_call(gaia: Gaia, redis_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Gaia(redis_url, f"redis://{address}/0") as split:
            pending = split.submit(Echo("kept"), delay=60)
            with pytest.raises(errors.Unreachable, match=address):
                pending.cancel()
    assert gaia.queues.delayed() == 1
    gaia.cancel(pending.id)
    assert gaia.queues.delayed() == 0


def test_a_cancelled_call_that_nobody_asks_for_leaves_no_result(gaia: Gaia, client: redis.Redis) -> None:
    pending = gaia.submit(Echo("never"), delay=60, result=False)
    pending.cancel()
    assert gaia.queues.delayed() == client.exists(keys.result(pending.id)) == 0


def test_a_result_that_is_stored_survives_a_late_cancel(gaia: Gaia, probe_worker: Worker) -> None:
    pending = gaia.submit(Echo("done"))
    assert pending.get(timeout=20).text == "done"
    pending.cancel()
    assert pending.get(timeout=0).text == "done"


def test_a_paused_operation_is_put_aside_and_comes_back_in_order(
    gaia: Gaia, client: redis.Redis, probe_worker: Worker, tmp_path: Path
) -> None:
    client.sadd(keys.PAUSED, "probe.append")
    calls = [gaia.submit(Append(str(tmp_path / "order"), str(number))) for number in range(5)]
    assert gaia.submit(Echo("others run on")).get(timeout=20).text == "others run on"
    until(lambda: client.llen(keys.aside("probe.append")) == 5)
    assert not (tmp_path / "order").exists()
    assert script(client, "resume")(keys=[keys.PAUSED, keys.aside("probe.append")], args=["probe.append"]) == 5
    assert [each.get(timeout=20).text for each in calls] == list("01234")


def test_a_message_that_breaks_its_reader_is_a_dead_letter(
    gaia: Gaia, client: redis.Redis, probe_worker: Worker
) -> None:
    poison = {"__type__": "decimal", "__value__": "abc"}
    message = {"headers": {"x": poison}, "body": "", "properties": {"delivery_tag": "poison", "delivery_info": {}}}
    client.lpush("probe", json.dumps(message))
    assert gaia.submit(Echo("still here")).get(timeout=20).text == "still here"
    until(lambda: client.hlen("unacked") == 0)


def test_delays_under_load_cost_no_lease(gaia: Gaia, client: redis.Redis, probe_worker: Worker) -> None:
    delayed = [gaia.submit(Echo("late"), delay=0.1 + 0.05 * number) for number in range(10)]
    rest = gaia.submit_many([Echo("now") for _ in range(600)])
    assert all(each.get(timeout=30) for each in delayed)
    assert all(each.unwrap().get(timeout=30) for each in rest)
    assert not list(client.scan_iter("gaia:lost:*"))
    assert "no reply from the broker" not in probe_worker.text()


def test_a_paused_queue_starts_nothing_even_on_a_worker_started_later(
    gaia: Gaia, client: redis.Redis, redis_url: str, tmp_path: Path, probe_worker: Worker
) -> None:
    client.sadd(keys.PAUSED, "probe")
    pending = gaia.submit(Echo("held up"))
    with cluster.probe_worker(redis_url, log=tmp_path / "second.log"):
        with pytest.raises(errors.NotReady):
            pending.get(timeout=1.5)
        assert client.llen("probe") == 1
        client.srem(keys.PAUSED, "probe")
        assert pending.get(timeout=20).text == "held up"


def test_pausing_what_is_neither_queue_nor_operation_is_refused(gaia: Gaia) -> None:
    for name in ("apis", "", "\udcff", "gaia.node.a@h"):
        with pytest.raises(errors.InvalidCall, match=r"must be a queue .api, files, browser, process, network."):
            gaia.queues.pause(name)
    for name in ("api.", "api.request.x", "api.reqest"):
        with pytest.raises(errors.InvalidCall, match=r"an operation .*api\.request[,)]"):
            gaia.queues.pause(name)
        with pytest.raises(errors.InvalidCall):
            gaia.queues.resume(name)
    assert gaia.queues.paused() == set()


def test_what_another_version_paused_can_be_resumed(gaia: Gaia, client: redis.Redis) -> None:
    client.sadd(keys.PAUSED, "api.of_tomorrow")
    assert gaia.queues.resume("api.of_tomorrow") == 0
    assert gaia.queues.paused() == set()


def test_a_failed_call_that_nobody_hears_of_becomes_a_dead_letter(gaia: Gaia, probe_worker: Worker) -> None:
    gaia.submit(Fail(token="s3cr3t-value-1"), result=False)
    letter = until(lambda: next((each for each in gaia.dead.list() if each.operation == "probe.fail"), None))
    assert "InternalError" in letter.error or "RuntimeError" in letter.error
    assert "s3cr3t-value-1" not in repr(letter)
    assert letter.call.startswith("{'token': ")


def test_a_dead_letter_is_replayed_under_its_id(gaia: Gaia, probe_worker: Worker, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "file"
    pending = gaia.submit(Append(str(missing), "x"), result=False, deadline=60)
    letter = until(lambda: gaia.dead.show(pending.id))
    assert letter.operation == "probe.append"
    missing.parent.mkdir()
    assert gaia.dead.replay(letter.id)
    until(missing.exists)
    assert gaia.dead.show(letter.id) is None
    assert not gaia.dead.replay(letter.id)


def test_a_dead_letter_tells_the_history_of_its_call(gaia: Gaia, client: redis.Redis, probe_worker: Worker) -> None:
    before = time.time()
    call = Flaky(succeed_at=99)
    pending = gaia.submit(call, result=False, delay=0.2)
    first = until(lambda: gaia.dead.show(pending.id))
    assert first.submitted_at is not None
    assert before <= first.submitted_at < before + 0.2 <= first.history[0].at <= first.history[1].at <= first.at
    assert [each.what for each in first.history] == ["attempt 1 failed", "attempt 2 failed"]
    assert "attempt 2" in first.history[1].error
    assert (first.attempts, "attempt 3" in first.error) == (3, True)
    assert client.ttl(keys.history(pending.id)) > 29 * 86_400

    assert gaia.dead.replay(pending.id)
    second = until(lambda: gaia.dead.show(pending.id))
    assert second.submitted_at == first.submitted_at
    assert [each.what for each in second.history] == [
        "attempt 1 failed",
        "attempt 2 failed",
        "became a dead letter: it failed, and its result is stored for nobody",
        "attempt 1 failed",
        "attempt 2 failed",
    ]
    assert second.history[2].error == first.error
    assert gaia.dead.drop(pending.id)
    assert not client.exists(keys.history(pending.id))


def test_a_call_that_goes_well_has_no_history(gaia: Gaia, client: redis.Redis, probe_worker: Worker) -> None:
    pending = gaia.submit(Echo("well"))
    assert pending.get(timeout=20).text == "well"
    assert not client.exists(keys.history(pending.id))


def test_the_key_of_a_replayed_call_outlives_its_new_deadline(
    gaia: Gaia, client: redis.Redis, probe_worker: Worker
) -> None:
    options = {"idempotency_key": "again", "result": False}
    pending = gaia.submit(Fail(), deadline=7 * 86_400, **options)
    letter = until(lambda: gaia.dead.show(pending.id))
    assert client.ttl(keys.idempotency("again")) <= keys.KEY_TTL_S
    client.sadd(keys.PAUSED, "probe")
    assert gaia.dead.replay(letter.id)
    assert client.ttl(keys.idempotency("again")) > 7 * 86_400


def test_garbage_cannot_be_replayed_but_dropped(gaia: Gaia, client: redis.Redis, probe_worker: Worker) -> None:
    client.lpush("probe", b"\xff\xfe no message")
    letter = until(lambda: next((each for each in gaia.dead.list() if "no message" in each.reason), None))
    with pytest.raises(errors.NotReplayable):
        gaia.dead.replay(letter.id)
    assert gaia.dead.drop(letter.id)
    assert gaia.dead.show(letter.id) is None


def test_submit_many_answers_item_by_item(gaia: Gaia, probe_worker: Worker) -> None:
    calls = [Echo(str(number)) for number in range(1200)]
    calls[700] = Echo("x" * 2_000_000)
    outcomes = gaia.submit_many(calls)
    assert [each.ok for each in outcomes].count(False) == 1
    assert isinstance(outcomes[700].error, errors.PayloadTooLarge)
    assert [each.unwrap().get(timeout=30).text for each in outcomes[:700]] == [str(number) for number in range(700)]


def test_a_long_call_is_run_once_although_it_outlasts_the_lease(
    gaia: Gaia, probe_worker: Worker, marks: tuple[str, str]
) -> None:
    pending = gaia.submit(Hold(*marks))
    with pytest.raises(errors.NotReady):
        pending.get(timeout=9)
    Path(marks[1]).touch()
    assert pending.get(timeout=20).text == "released"
    assert Path(marks[0]).read_text() == "x"

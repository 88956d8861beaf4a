"""What stands around a service: a real worker process, the test operations, a real server."""

import asyncio
import base64
import json
import os
import time
from pathlib import Path

import pytest
import redis
from celery import Celery

from gaia import Gaia, errors
from gaia.store import keys
from tests.support.cluster import Worker
from tests.support.probe import Append, Echo, Fail, Flaky, Hold, Seen, Smear
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("probe_worker")

SECRET = "s3cr3t-token-of-mine"


def outcome(gaia: Gaia, call: Echo | Fail | Flaky | Hold | Smear, **options: float) -> object:
    try:
        return gaia.submit(call, **options).get(timeout=20)
    except errors.GaiaError as error:
        return error


def test_a_call_comes_back_as_its_typed_result(gaia: Gaia) -> None:
    assert gaia.submit(Echo("hi", body=b"\0\xff")).get(timeout=20) == Seen("hi", 1, b"\0\xff")


def test_a_large_body_travels_both_ways_as_an_artifact(gaia: Gaia, client: redis.Redis) -> None:
    body = os.urandom(1_000_000)
    assert gaia.submit(Echo("large", body=body)).get(timeout=20).body == body
    stored = list(client.scan_iter("gaia:artifact:*"))
    assert len(stored) == 2
    assert all(3600 - 60 < client.ttl(each) <= 3600 + 900 for each in stored)


def test_many_calls_are_awaited_over_one_connection(gaia: Gaia, client: redis.Redis) -> None:
    async def gather() -> list[Seen]:
        pendings = [gaia.submit(Echo(str(number))) for number in range(100)]
        return await asyncio.gather(*pendings)

    assert [each.text for each in asyncio.run(gather())] == [str(number) for number in range(100)]
    subscribed = [each for each in client.client_list() if int(each["sub"]) > 1]
    assert len(subscribed) <= 1


def test_a_pending_is_taken_up_again_by_its_id(gaia: Gaia, redis_url: str) -> None:
    call_id = gaia.submit(Echo("again")).id
    with Gaia(redis_url) as other:
        assert other.pending(call_id, Echo).get(timeout=20).text == "again"


def test_progress_is_what_the_service_said_last(gaia: Gaia) -> None:
    pending = gaia.submit(Echo("slow"))
    pending.get(timeout=20)
    progress = pending.progress()
    assert progress is not None
    assert (progress.done, progress.total, progress.note) == (1, 2, "half")


def test_without_a_stored_result_get_says_so(gaia: Gaia, client: redis.Redis) -> None:
    pending = gaia.submit(Echo("unheard"), result=False)
    with pytest.raises(errors.NoResult):
        pending.get(timeout=1)
    until(lambda: client.llen("probe") == 0)
    assert client.get(f"celery-task-meta-{pending.id}") is None


def test_get_bounds_its_wait(gaia: Gaia, marks: tuple[str, str]) -> None:
    pending = gaia.submit(Hold(*marks))
    with pytest.raises(TimeoutError) as caught:
        pending.get(timeout=0.05)
    assert isinstance(caught.value, errors.NotReady)
    Path(marks[1]).touch()
    assert pending.get(timeout=20).text == "released"


def test_a_foreign_error_becomes_an_internal_error_without_the_secret(gaia: Gaia, probe_worker: Worker) -> None:
    error = outcome(gaia, Fail(token=SECRET))
    assert isinstance(error, errors.InternalError)
    assert error.kind == "RuntimeError"
    assert SECRET not in str(error)
    log = until(lambda: "a service failed unexpectedly" in probe_worker.text() and probe_worker.text())
    assert "RuntimeError: could not log in with ***" in log
    assert SECRET not in log


def test_a_result_that_cannot_be_written_is_an_internal_error_too(gaia: Gaia) -> None:
    error = outcome(gaia, Smear())
    assert isinstance(error, errors.InternalError)
    assert error.kind == "TypeError"


def test_a_transient_error_is_retried_within_the_contract_policy(gaia: Gaia) -> None:
    assert gaia.submit(Flaky(succeed_at=3)).get(timeout=20).attempts == 3


def test_after_the_last_attempt_the_error_itself_comes_back(gaia: Gaia) -> None:
    error = outcome(gaia, Flaky(succeed_at=9))
    assert isinstance(error, errors.ConnectFailed)
    assert error.reason == "attempt 3"


def test_a_running_call_is_cancelled(gaia: Gaia, marks: tuple[str, str]) -> None:
    pending = gaia.submit(Hold(*marks))
    until(Path(marks[0]).exists)
    pending.cancel()
    with pytest.raises(errors.Cancelled):
        pending.get(timeout=20)


def test_a_queued_call_is_cancelled_before_it_runs(gaia: Gaia, tmp_path: Path) -> None:
    release = tmp_path / "release"
    holds = [gaia.submit(Hold(str(tmp_path / f"s{number}"), str(release))) for number in range(4)]
    until(lambda: all((tmp_path / f"s{number}").exists() for number in range(4)))
    queued = gaia.submit(Hold(str(tmp_path / "never"), str(release)))
    queued.cancel()
    # The news come in order: when this one has ended, the worker knows of the other.
    holds[0].cancel()
    with pytest.raises(errors.Cancelled):
        holds[0].get(timeout=20)
    release.touch()
    with pytest.raises(errors.Cancelled):
        queued.get(timeout=20)
    assert not (tmp_path / "never").exists()
    assert [each.get(timeout=20).text for each in holds[1:]] == ["released"] * 3


def test_a_call_past_its_deadline_while_it_runs_is_stopped(gaia: Gaia, marks: tuple[str, str]) -> None:
    assert isinstance(outcome(gaia, Hold(*marks), deadline=0.5), errors.DeadlineExceeded)
    assert Path(marks[0]).exists()


def test_a_call_past_its_deadline_or_expiry_in_the_queue_is_not_started(gaia: Gaia, tmp_path: Path) -> None:
    release = tmp_path / "release"
    holds = [gaia.submit(Hold(str(tmp_path / f"s{number}"), str(release))) for number in range(4)]
    until(lambda: all((tmp_path / f"s{number}").exists() for number in range(4)))
    late = gaia.submit(Hold(str(tmp_path / "late"), str(release)), deadline=0.05)
    stale = gaia.submit(Hold(str(tmp_path / "stale"), str(release)), expires=0.05)
    with pytest.raises(errors.NotReady):
        late.get(timeout=0.2)
    release.touch()
    with pytest.raises(errors.DeadlineExceeded):
        late.get(timeout=20)
    with pytest.raises(errors.Expired):
        stale.get(timeout=20)
    assert not (tmp_path / "late").exists()
    assert not (tmp_path / "stale").exists()
    assert all(each.get(timeout=20) for each in holds)


def test_an_idempotency_key_leads_to_the_first_call(gaia: Gaia) -> None:
    first = gaia.submit(Echo("once"), idempotency_key="order-7")
    second = gaia.submit(Echo("once"), idempotency_key="order-7")
    assert first.id == second.id
    assert second.get(timeout=20).text == "once"
    with pytest.raises(errors.KeyReused):
        gaia.submit(Echo("twice"), idempotency_key="order-7")


def test_a_key_and_its_result_are_kept_a_day_after_the_call_has_ended(gaia: Gaia, client: redis.Redis) -> None:
    for number, call in enumerate((Echo("long"), Fail(), Smear())):
        pending = gaia.submit(call, idempotency_key=f"long-{number}", deadline=3 * 86_400)
        until(pending.ready)
        kept_s = client.ttl(keys.idempotency(f"long-{number}"))
        assert keys.KEY_TTL_S - 60 < kept_s <= keys.KEY_TTL_S
        assert abs(client.ttl(keys.result(pending.id)) - kept_s) < 60


def test_a_key_that_a_message_names_without_owning_it_is_left_alone(
    gaia: Gaia, client: redis.Redis, redis_url: str
) -> None:
    gaia.submit(Echo("owner"), idempotency_key="owned", delay=86_400)
    before_s = client.ttl(keys.idempotency("owned"))
    with Celery("foreign", broker=redis_url, set_as_current=False) as foreign:
        sent = foreign.send_task("probe.echo", {}, {"text": "x"}, queue="probe", headers={"gaia": {"key": "owned"}})
    gaia.pending(sent.id, Echo).get(timeout=20)
    assert client.ttl(keys.idempotency("owned")) > before_s - 60
    client.delete("gaia:delayed", "gaia:delayed:messages")


def test_lower_priority_numbers_run_first(gaia: Gaia, client: redis.Redis, tmp_path: Path) -> None:
    # Paused meanwhile, or else the first few would be fetched before the others are there.
    client.sadd(keys.PAUSED, "probe")
    started = tmp_path / "started"
    names = {9: "last", 3: "middle", 0: "first"}
    queued = [
        gaia.submit(Append(str(started), word), priority=priority) for priority, word in names.items() for _ in range(6)
    ]
    client.srem(keys.PAUSED, "probe")
    assert all(each.get(timeout=20) for each in queued)
    order = started.read_text().split()
    # Four run at once, and their threads take turns as they like.
    middles = {word: sum(at for at, each in enumerate(order) if each == word) / 6 for word in names.values()}
    assert middles["first"] < middles["middle"] < middles["last"]


@pytest.fixture
def foreign(redis_url: str) -> Celery:
    """A Celery app that knows nothing of Gaia but its Redis."""
    return Celery("foreign", broker=redis_url, backend=redis_url, set_as_current=False)


def test_any_celery_app_can_enqueue_by_name_and_json(foreign: Celery) -> None:
    with foreign:
        found = foreign.send_task("probe.echo", kwargs={"text": "hello"}, queue="probe").get(timeout=20)
    assert found == {"text": "hello"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "text"),
        ({"text": 3}, "text"),
        ({"text": "x", "txet": 1}, "txet"),
        ({"text": "x", "body": "no base64!"}, "body"),
        ({"text": "x", "body": {"$artifact": {"id": "../../etc/passwd", "size_bytes": 1, "sha256": ""}}}, None),
    ],
)
def test_a_malformed_call_is_refused_by_the_name_of_its_field(
    foreign: Celery, fields: dict[str, object], field: str | None
) -> None:
    with foreign, pytest.raises(errors.Permanent) as caught:
        foreign.send_task("probe.echo", kwargs=fields, queue="probe").get(timeout=20)
    if field is not None:
        assert isinstance(caught.value, errors.InvalidCall)
        assert caught.value.field == field


def test_positional_arguments_are_refused(foreign: Celery) -> None:
    with foreign, pytest.raises(errors.InvalidCall, match="travel by name"):
        foreign.send_task("probe.echo", args=("x",), queue="probe").get(timeout=20)


@pytest.mark.parametrize("header", [7, {"v": "one"}, {"v": 1, "deadline": "soon"}, {"v": 1, "key": 3}])
def test_a_malformed_envelope_is_refused(foreign: Celery, header: object) -> None:
    with foreign, pytest.raises(errors.InvalidCall, match="gaia"):
        foreign.send_task("probe.echo", kwargs={"text": "x"}, queue="probe", headers={"gaia": header}).get(timeout=20)


def test_a_newer_payload_waits_for_a_newer_worker_until_its_deadline(
    foreign: Celery, gaia: Gaia, client: redis.Redis
) -> None:
    header = {"gaia": {"v": 99, "deadline": time.time() + 60}}
    with foreign:
        call_id = foreign.send_task("probe.echo", kwargs={"text": "x"}, queue="probe", headers=header).id
    until(lambda: client.hlen("gaia:delayed:messages") == 1)
    (entry,) = client.hvals("gaia:delayed:messages")
    assert call_id.encode() in entry
    assert client.get(f"celery-task-meta-{call_id}") is None
    client.delete("gaia:delayed", "gaia:delayed:messages")


def test_a_newer_payload_at_its_deadline_is_a_dead_letter(foreign: Celery, gaia: Gaia) -> None:
    header = {"gaia": {"v": 99, "deadline": time.time() + 2}}
    with foreign, pytest.raises(errors.NewerPayload):
        foreign.send_task("probe.echo", kwargs={"text": "x"}, queue="probe", headers=header).get(timeout=20)
    assert until(lambda: [each for each in gaia.dead.list() if "version" in each.reason])


def test_an_unknown_operation_is_an_error_result_and_a_dead_letter(foreign: Celery, gaia: Gaia) -> None:
    with foreign, pytest.raises(errors.UnknownOperation):
        foreign.send_task("probe.nothing", kwargs={"text": "x"}, queue="probe").get(timeout=20)
    letters = until(lambda: [each for each in gaia.dead.list() if each.operation == "probe.nothing"])
    assert letters[0].reason == "no operation is called probe.nothing"


GARBAGE = [
    b"",
    b"not json",
    b"[" * 100_000,
    b"[1, 2]",
    b"null",
    b"{}",
    b'{"properties": null}',
    b'{"properties": {"delivery_tag": 7}}',
    b'{"properties": {"delivery_tag": "t", "delivery_info": null}, "headers": {}}',
]


def message(body: object, **headers: object) -> bytes:
    return json.dumps(
        {
            "body": body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {
                "delivery_tag": os.urandom(8).hex(),
                "delivery_info": {"exchange": "", "routing_key": "probe"},
                "body_encoding": "utf-8",
            },
        }
    ).encode()


MISSHAPEN = [
    message("null", task="probe.echo", id="a"),
    message("[]", task="probe.echo", id="b"),
    message("7", task="probe.echo", id="c"),
    message("[[], 7, {}]", task="probe.echo", id="d"),
    message("[[], {}, {}]", task="probe.echo"),
    message("not json", task="probe.echo", id="e"),
    message("[[], {}, {}]", id="f"),
    message('[[], {"text": "x"}, {}]', task=["probe.echo"], id="g"),
    message('[[], {"text": "x"}, {}]', task="probe.echo", id="h", eta="noon"),
    message('[[], {"text": "x"}, {}]', task="probe.echo", id="i", expires={}),
    message('[[], {"text": "x"}, {}]', task="probe.echo", id="j", retries="many"),
]


@pytest.mark.parametrize("garbage", GARBAGE + MISSHAPEN)
def test_garbage_on_the_queue_does_not_stop_the_worker(
    gaia: Gaia, client: redis.Redis, probe_worker: Worker, garbage: bytes
) -> None:
    client.lpush("probe", garbage)
    assert gaia.submit(Echo("still here")).get(timeout=20).text == "still here"
    assert probe_worker.process.poll() is None
    until(lambda: client.hlen("unacked") == 0, what="the end of the held record")


def opened(data: object) -> str:
    """Give the text of a published message, the body of an event decoded."""
    if not isinstance(data, bytes):
        return ""
    found = json.loads(data)
    body = base64.b64decode(found["body"]).decode() if isinstance(found, dict) and "body" in found else ""
    return data.decode() + body


def test_no_secret_reaches_log_events_results_or_inspect(
    gaia: Gaia, foreign: Celery, client: redis.Redis, probe_worker: Worker, marks: tuple[str, str]
) -> None:
    events: list[str] = []
    pubsub = client.pubsub()
    pubsub.psubscribe("*")
    with foreign:
        gaia.submit(Echo("own", token=SECRET)).get(timeout=20)
        foreign.send_task("probe.echo", kwargs={"text": "foreign", "token": SECRET}, queue="probe").get(timeout=20)
        foreign.send_task("probe.echo", kwargs={"txet": "wrong", "token": SECRET}, queue="probe").get(
            timeout=20, propagate=False
        )
        foreign.send_task("probe.nothing", kwargs={"token": SECRET}, queue="probe").get(timeout=20, propagate=False)
        held = gaia.submit(Hold(*marks))
        until(Path(marks[0]).exists)
        assert SECRET not in repr(foreign.control.inspect().active())
        Path(marks[1]).touch()
        held.get(timeout=20)
    until(lambda: "probe.hold" in probe_worker.text())
    while (found := pubsub.get_message(timeout=0.2)) is not None:
        events.append(opened(found["data"]))
    pubsub.close()
    assert any("task-received" in each for each in events)
    assert any("task-succeeded" in each for each in events)
    assert not any(SECRET in each for each in events)
    assert SECRET not in probe_worker.text()
    results = [client.get(each) for each in client.scan_iter("celery-task-meta-*")]
    assert results
    assert not any(SECRET.encode() in each for each in results if each)

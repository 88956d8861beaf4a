"""What becomes of a submitted call, from what a worker stored."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis

from gaia import Gaia, Pending, errors, network
from gaia.codec import ARTIFACT
from gaia.contracts import files
from gaia.errors import (
    ArtifactMissing,
    Cancelled,
    Expired,
    GaiaError,
    InvalidResult,
    NoResult,
    NotReady,
    RemoteError,
    Unreachable,
)
from gaia.store import cancel, keys, progress
from gaia.store.progress import Progress
from tests.support.waiting import until

RESOLVED = {"name": "a.example", "type": "A", "addresses": ["192.0.2.1"], "ttl_s": 5, "cached": False}


def store(client: redis.Redis, call_id: str, status: str, result: Any) -> None:
    text = json.dumps({"status": status, "result": result, "traceback": None, "task_id": call_id})
    client.set(keys.result(call_id), text, ex=60)
    client.publish(keys.result(call_id), text)


def fail(client: redis.Redis, call_id: str, kind: Any, message: Any, status: str = "FAILURE") -> None:
    store(client, call_id, status, {"exc_type": kind, "exc_message": message, "exc_module": "gaia.errors"})


def resolve(gaia: Gaia, call_id: str) -> Pending[network.Resolved]:
    return gaia.pending(call_id, network.Resolve)


def error_of(pending: Pending[Any]) -> GaiaError:
    with pytest.raises(GaiaError) as caught:
        pending.get(5)
    return caught.value


# --- results


def test_a_stored_result_is_typed(gaia: Gaia, client: redis.Redis) -> None:
    store(client, "typed", "SUCCESS", RESOLVED)
    pending = resolve(gaia, "typed")
    assert pending.ready()
    assert pending.get(5) == network.Resolved("a.example", "A", ("192.0.2.1",), 5.0, cached=False)


def test_what_a_newer_worker_adds_to_a_result_is_ignored(gaia: Gaia, client: redis.Redis) -> None:
    store(client, "newer", "SUCCESS", {**RESOLVED, "authenticated": True})
    assert resolve(gaia, "newer").get(5).ttl_s == 5.0


@pytest.mark.parametrize(
    ("result", "field"),
    [
        ({**RESOLVED, "ttl_s": "soon"}, "ttl_s"),
        ({**RESOLVED, "addresses": [1]}, "addresses[0]"),
        ({"name": "a.example"}, "addresses"),
        ({}, "name"),
        ([], ""),
        (None, ""),
        ("text", ""),
    ],
)
def test_a_result_of_another_form_is_an_invalid_result(
    gaia: Gaia, client: redis.Redis, result: Any, field: str
) -> None:
    """And not an outage of Redis, which would be tried again."""
    store(client, "odd", "SUCCESS", result)
    error = error_of(resolve(gaia, "odd"))
    assert isinstance(error, InvalidResult)
    assert (error.operation, error.field) == ("network.resolve", field) or field == "addresses"


def test_a_large_body_is_fetched(gaia: Gaia, client: redis.Redis) -> None:
    body = b"x" * 100_000
    reference = files.Write("data:x", body).fields_json(gaia.artifacts())["body"]
    content = {"path": "data:x", "body": reference, "size_bytes": len(body), "etag": "e"}
    store(client, "large", "SUCCESS", content)
    assert gaia.pending("large", files.Read).get(5).body == body


def test_a_body_that_has_gone_is_said_to_be(gaia: Gaia, client: redis.Redis) -> None:
    reference = {ARTIFACT: {"id": "0" * 32, "size_bytes": 1, "sha256": "0" * 64}}
    store(client, "gone", "SUCCESS", {"path": "data:x", "body": reference, "size_bytes": 1, "etag": "e"})
    assert isinstance(error_of(gaia.pending("gone", files.Read)), ArtifactMissing)


def test_an_unreadable_result_is_a_remote_error(gaia: Gaia, client: redis.Redis) -> None:
    client.set(keys.result("garbage"), b"\xff{")
    assert isinstance(error_of(resolve(gaia, "garbage")), RemoteError)


# --- errors


def test_an_error_of_ours_comes_back_as_itself(gaia: Gaia, client: redis.Redis) -> None:
    fail(client, "ours", "TimedOut", ["network.resolve", 5])
    error = error_of(resolve(gaia, "ours"))
    assert isinstance(error, errors.TimedOut)
    assert error.args == ("network.resolve", 5.0)


@pytest.mark.parametrize(
    ("kind", "message", "shown"),
    [
        ("NewerError", ["a", 1], "NewerError: a, 1"),
        ("TimedOut", ["of another version"], "TimedOut: of another version"),
        ("ValueError", "text", "ValueError: text"),
        ("ValueError", {"a": 1}, "ValueError: {'a': 1}"),
        ("ValueError", None, "ValueError: None"),
        (None, ["x"], "None: x"),
        (["x"], ["x"], "['x']: x"),
    ],
)
def test_another_error_is_a_remote_error(gaia: Gaia, client: redis.Redis, kind: Any, message: Any, shown: str) -> None:
    fail(client, "foreign", kind, message)
    error = error_of(resolve(gaia, "foreign"))
    assert isinstance(error, RemoteError)
    assert str(error) == shown


@pytest.mark.parametrize("stored", [None, "text", [], {}, 5])
def test_a_failure_without_an_error_is_a_remote_error(gaia: Gaia, client: redis.Redis, stored: Any) -> None:
    store(client, "bare", "FAILURE", stored)
    assert isinstance(error_of(resolve(gaia, "bare")), RemoteError)


@pytest.mark.parametrize(("message", "kind"), [(["expired"], Expired), (["terminated"], Cancelled), ([], Cancelled)])
@pytest.mark.parametrize("status", ["REVOKED", "FAILURE"])
def test_celery_s_revocations_are_told_apart(
    gaia: Gaia, client: redis.Redis, message: list[str], kind: type[GaiaError], status: str
) -> None:
    fail(client, "revoked", "TaskRevokedError", message, status)
    error = error_of(resolve(gaia, "revoked"))
    assert type(error) is kind
    assert error.args == ("revoked",)


# --- waiting


def test_a_wait_has_its_bound(gaia: Gaia) -> None:
    for timeout in (0, 0.05, timedelta(milliseconds=50), -1):
        with pytest.raises(NotReady) as caught:
            resolve(gaia, "never").get(timeout)
        assert caught.value.id == "never"
    assert not resolve(gaia, "never").ready()


def test_a_result_that_comes_while_waiting_is_given(gaia: Gaia, client: redis.Redis) -> None:
    found: list[network.Resolved] = []
    thread = threading.Thread(target=lambda: found.append(resolve(gaia, "comes").get(20)))
    thread.start()
    until(lambda: client.pubsub_numsub(keys.result("comes"))[0][1])
    store(client, "comes", "SUCCESS", RESOLVED)
    thread.join(20)
    assert found[0].name == "a.example"


def test_many_are_awaited(gaia: Gaia, client: redis.Redis) -> None:
    async def gather() -> list[Any]:
        waiting = asyncio.gather(*(resolve(gaia, f"await-{number}") for number in range(50)), return_exceptions=True)
        await asyncio.sleep(0)
        for number in range(49):
            store(client, f"await-{number}", "SUCCESS", RESOLVED)
        fail(client, "await-49", "TimedOut", ["network.resolve", 5])
        return await waiting

    *results, error = asyncio.run(gather())
    assert [each.name for each in results] == ["a.example"] * 49
    assert isinstance(error, errors.TimedOut)


def test_an_awaiting_task_that_is_cancelled_stops_waiting(gaia: Gaia, client: redis.Redis) -> None:
    async def cancelled() -> bool:
        task = asyncio.ensure_future(resolve(gaia, "given-up"))
        await asyncio.to_thread(until, lambda: client.pubsub_numsub(keys.result("given-up"))[0][1])
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())
    until(lambda: not client.pubsub_numsub(keys.result("given-up"))[0][1])


@pytest.mark.parametrize("wait", [lambda pending: pending.get(20), lambda pending: asyncio.run(awaiting(pending))])
def test_closing_the_client_ends_every_wait(
    redis_url: str, client: redis.Redis, wait: Callable[[Pending[Any]], object]
) -> None:
    gaia = Gaia(redis_url)
    caught: list[BaseException] = []

    def run() -> None:
        try:
            wait(resolve(gaia, "closed"))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: client.pubsub_numsub(keys.result("closed"))[0][1])
    gaia.close()
    thread.join(20)
    assert [type(each) for each in caught] == [NotReady]
    assert not [each for each in threading.enumerate() if each.name == "gaia-results"]


async def awaiting(pending: Pending[Any]) -> object:
    return await pending


def test_while_redis_is_away_a_wait_ends_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Gaia(f"redis://:hunter22@127.0.0.1:{taken.getsockname()[1]}/0") as gaia:
            with pytest.raises(Unreachable) as caught:
                resolve(gaia, "x").get(0.5)
            assert "hunter22" not in repr(caught.value)


def test_without_a_stored_result_every_question_says_so(gaia: Gaia) -> None:
    pending = gaia.submit(network.Resolve("a.example"), result=False)
    with pytest.raises(NoResult):
        pending.get(1)
    with pytest.raises(NoResult):
        pending.ready()
    with pytest.raises(NoResult):
        asyncio.run(awaiting(pending))


# --- the rest


def test_progress_is_the_worker_s_last_word(gaia: Gaia, client: redis.Redis) -> None:
    assert resolve(gaia, "progressing").progress() is None
    progress.store(client, "progressing", Progress(1, 2, "half", 5.0))
    assert resolve(gaia, "progressing").progress() == Progress(1, 2, "half", 5.0)


def test_cancel_leaves_the_mark(gaia: Gaia, client: redis.Redis) -> None:
    resolve(gaia, "unwanted").cancel()
    assert cancel.requested(client, ["unwanted"]) == [True]


def test_it_shows_what_it_is(gaia: Gaia) -> None:
    assert repr(resolve(gaia, "x")) == "Pending(network.resolve, id='x')"

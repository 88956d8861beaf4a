"""The producer's door, without a worker behind it."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
import traceback
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

import gaia as gaia_package
from gaia import Gaia, wire
from gaia.contracts import api, files, network
from gaia.errors import (
    BodyTooLarge,
    InvalidCall,
    InvalidSetting,
    KeyReused,
    NoResult,
    NotConfigured,
    PayloadTooLarge,
    Unreachable,
)
from gaia.store import keys

CALL = network.Resolve("a.example")


@pytest.fixture(autouse=True)
def empty(client: redis.Redis) -> Iterator[None]:
    yield
    client.flushdb()


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GAIA_REDIS_URL", "GAIA_RESULT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A URL at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://:hunter22@127.0.0.1:{taken.getsockname()[1]}/0"


def queued(client: redis.Redis, name: str = "network") -> list[dict[str, Any]]:
    """Give the messages of a list, the oldest first."""
    return [json.loads(each) for each in reversed(client.lrange(name, 0, -1))]


def delayed(client: redis.Redis, call_id: str) -> tuple[str, dict[str, Any]]:
    """Give the list and the message of a call that waits for its time."""
    stored = client.hget(keys.DELAYED_MESSAGES, call_id)
    assert isinstance(stored, bytes)
    name, _, text = stored.partition(b"\n")
    return name.decode(), json.loads(text)


def fields(message: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b64decode(message["body"]))[1]
    return found


def refused(submit: Callable[[], object]) -> InvalidCall:
    with pytest.raises(InvalidCall) as caught:
        submit()
    return caught.value


# --- where Redis is


def test_without_a_url_it_says_what_to_set() -> None:
    with pytest.raises(NotConfigured) as caught:
        Gaia()
    assert caught.value.setting == "GAIA_REDIS_URL"


def test_the_variables_name_both(redis_url: str, monkeypatch: pytest.MonkeyPatch, client: redis.Redis) -> None:
    monkeypatch.setenv("GAIA_REDIS_URL", redis_url)
    with Gaia() as g:
        g.submit(CALL)
    assert len(queued(client)) == 1
    monkeypatch.setenv("GAIA_RESULT_URL", "redis://:hunter22@elsewhere:1/2")
    with Gaia() as g:
        assert g.result_url_shown == "redis://***@elsewhere:1/2"


@pytest.mark.parametrize("name", ["GAIA_REDIS_URL", "GAIA_RESULT_URL"])
@pytest.mark.parametrize(
    "url", ["hunter22@h", "http://:hunter22@h", "redis://:hunter22@h:port", "redis://:hunter/22@h"]
)
def test_a_malformed_url_is_named_at_once_and_not_shown(name: str, url: str) -> None:
    urls = {"GAIA_REDIS_URL": "redis://h", "GAIA_RESULT_URL": "redis://h", name: url}
    with pytest.raises(InvalidSetting) as caught:
        Gaia(urls["GAIA_REDIS_URL"], urls["GAIA_RESULT_URL"])
    assert caught.value.setting == name
    assert "hunter" not in "".join(traceback.format_exception(caught.value, limit=0))


def test_a_password_is_in_no_repr() -> None:
    assert repr(Gaia("redis://me:hunter22@h:1/2")) == "Gaia('redis://***@h:1/2')"


def test_nothing_is_dialled_before_the_first_call(dead_url: str) -> None:
    with Gaia(dead_url):
        pass


@pytest.mark.parametrize(
    "ask",
    [
        lambda g: g.submit(CALL),
        lambda g: g.submit(CALL, idempotency_key="k"),
        lambda g: g.submit(CALL, delay=5),
        lambda g: g.submit(files.Write("data:x", b"x" * 100_000)),
        lambda g: g.cancel("id"),
        lambda g: g.pending("id", network.Resolve).ready(),
        lambda g: g.pending("id", network.Resolve).progress(),
        lambda g: g.pending("id", network.Resolve).get(0.5),
        lambda g: g.submit_many([CALL])[0].unwrap(),
    ],
)
def test_with_redis_away_every_question_ends_unreachable(dead_url: str, ask: Callable[[Gaia], object]) -> None:
    with Gaia(dead_url) as g, pytest.raises(Unreachable) as caught:
        ask(g)
    assert "hunter22" not in repr(caught.value)
    assert "***@127.0.0.1" in caught.value.url


# --- what is queued


def test_a_call_is_queued_where_its_contract_says(gaia: Gaia, client: redis.Redis) -> None:
    pending = gaia.submit(CALL)
    (message,) = queued(client)
    assert message["headers"]["task"] == "network.resolve"
    assert message["headers"]["id"] == pending.id
    assert fields(message) == {"name": "a.example"}
    assert message["headers"]["gaia"]["v"] == wire.PAYLOAD_VERSION


@pytest.mark.parametrize(
    ("priority", "name"), [(0, "network"), (2, "network"), (3, "network\x06\x163"), (9, "network\x06\x169")]
)
def test_a_priority_has_its_list(gaia: Gaia, client: redis.Redis, priority: int, name: str) -> None:
    gaia.submit(CALL, priority=priority)
    assert len(queued(client, name)) == 1


@pytest.mark.parametrize("priority", [-1, 10, True, 1.0, "1", None])
def test_a_priority_is_from_0_to_9(gaia: Gaia, client: redis.Redis, priority: Any) -> None:
    assert refused(lambda: gaia.submit(CALL, priority=priority)).field == "priority"
    assert not queued(client)


DURATIONS = [0, -1, 0.0, math.nan, math.inf, 10**400, timedelta(0), timedelta(days=-1), timedelta.max, "soon", [], {}]


@pytest.mark.parametrize("index", range(len(DURATIONS)))
@pytest.mark.parametrize("name", ["deadline", "expires", "delay"])
def test_a_duration_is_positive_and_not_for_ever(gaia: Gaia, client: redis.Redis, name: str, index: int) -> None:
    arguments: dict[str, Any] = {name: DURATIONS[index]}
    assert refused(lambda: gaia.submit(CALL, **arguments)).field == name
    assert client.dbsize() == 0


@pytest.mark.parametrize("duration", [30, 30.0, timedelta(seconds=30)])
def test_a_duration_is_seconds_or_a_timedelta(gaia: Gaia, client: redis.Redis, duration: Any) -> None:
    gaia.submit(CALL, deadline=duration, expires=duration)
    (message,) = queued(client)
    envelope = message["headers"]["gaia"]
    assert envelope["deadline"] - envelope["at"] == pytest.approx(30)
    assert datetime.fromisoformat(message["headers"]["expires"]).timestamp() == pytest.approx(envelope["deadline"])


def test_a_call_for_later_has_its_times_from_then(gaia: Gaia, client: redis.Redis) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)
    pending = gaia.submit(CALL, eta=eta, deadline=30)
    assert not queued(client)
    assert client.zscore(keys.DELAYED, pending.id) == pytest.approx(eta.timestamp())
    name, message = delayed(client, pending.id)
    assert name == "network"
    assert message["headers"]["gaia"]["deadline"] == pytest.approx(eta.timestamp() + 30)


def test_a_time_that_has_passed_leaves_the_whole_deadline(gaia: Gaia, client: redis.Redis) -> None:
    pending = gaia.submit(CALL, eta=datetime.now(UTC) - timedelta(hours=1), deadline=30)
    _, message = delayed(client, pending.id)
    assert message["headers"]["gaia"]["deadline"] > datetime.now(UTC).timestamp()


@pytest.mark.parametrize(
    "arguments",
    [
        {"eta": datetime(2030, 1, 1)},  # noqa: DTZ001 - a time without zone is the point
        {"eta": 5},
        {"eta": "2030-01-01"},
        {"eta": datetime.max.replace(tzinfo=UTC)},
        {"eta": datetime.now(UTC), "delay": 5},
    ],
)
def test_a_time_has_a_zone_and_excludes_a_delay(gaia: Gaia, arguments: dict[str, Any]) -> None:
    assert refused(lambda: gaia.submit(CALL, **arguments)).field in {"eta", "delay"}


def test_a_call_that_its_contract_refuses_is_not_queued(gaia: Gaia, client: redis.Redis) -> None:
    wrong = api.Request("http://h/", data={"a": 1})  # type: ignore[dict-item]
    assert refused(lambda: gaia.submit(wrong)).field == "data.a"
    assert refused(lambda: gaia.submit(wrong, idempotency_key="wrong")).field == "data.a"
    assert client.dbsize() == 0


@pytest.mark.parametrize("given", ["x", None, files.Read, {"path": "data:a"}])
def test_what_is_no_call_is_refused(gaia: Gaia, given: Any) -> None:
    with pytest.raises(InvalidCall, match="must be a call") as caught:
        gaia.submit(given, delay=0)
    assert caught.value.reason.endswith(f"got {type(given).__name__}")
    (outcome,) = gaia.submit_many([given])
    assert str(outcome.error) == str(caught.value)


def test_a_message_over_the_limit_is_refused_and_holds_no_key(gaia: Gaia, client: redis.Redis) -> None:
    large = api.Request("http://h/", json="x" * wire.MESSAGE_LIMIT_BYTES)
    for key in (None, "large"):
        with pytest.raises(PayloadTooLarge) as caught:
            gaia.submit(large, idempotency_key=key)
        assert caught.value.operation == "api.request"
    assert client.dbsize() == 0


def test_a_body_over_the_store_s_limit_is_refused(gaia: Gaia, client: redis.Redis) -> None:
    with pytest.raises(BodyTooLarge):
        gaia.submit(files.Write("data:x", b"x" * (8 * 1024 * 1024 + 1)))
    assert not queued(client, "files")


@pytest.mark.parametrize("index", [0, 1])
def test_an_integer_of_thousands_of_digits_is_refused(gaia: Gaia, index: int) -> None:
    value = 10 ** (3000 + 3000 * index)
    assert refused(lambda: gaia.submit(api.Request("http://h/", json={"n": value}))).field == "json.n"


def test_a_lone_surrogate_in_a_json_value_is_queued(gaia: Gaia, client: redis.Redis) -> None:
    gaia.submit(api.Request("http://h/", json="\ud800"))
    assert fields(queued(client, "api")[0])["json"] == "\ud800"


# --- idempotency keys


def test_a_key_queues_one_call(gaia: Gaia, client: redis.Redis) -> None:
    ids = {gaia.submit(CALL, idempotency_key="order").id for _ in range(5)}
    assert len(ids) == 1
    assert len(queued(client)) == 1
    ttl_s = client.ttl(keys.idempotency("order"))
    assert keys.KEY_TTL_S < ttl_s <= keys.KEY_TTL_S + wire.DEFAULT_DEADLINE_S


def test_a_key_outlives_the_deadline_of_a_delayed_call_by_the_life_of_its_result(
    gaia: Gaia, client: redis.Redis
) -> None:
    day_s = 86_400
    first = gaia.submit(CALL, idempotency_key="later", delay=timedelta(days=2), deadline=timedelta(days=1))
    assert 3 * day_s <= client.ttl(keys.idempotency("later")) - keys.KEY_TTL_S <= 3 * day_s + 1
    second = gaia.submit(CALL, idempotency_key="later", delay=timedelta(days=2), deadline=timedelta(days=1))
    assert second.id == first.id
    assert client.zcard(keys.DELAYED) == 1


def test_a_later_call_under_a_key_waits_as_long_as_the_first_would(gaia: Gaia) -> None:
    first = gaia.submit(CALL, idempotency_key="later", delay=timedelta(days=2))
    assert gaia.submit(CALL, idempotency_key="later")._wait_s(None) == pytest.approx(first._wait_s(None), abs=5)


def test_a_later_call_under_a_key_whose_call_stores_no_result_hears_so(gaia: Gaia) -> None:
    gaia.submit(CALL, idempotency_key="untold", result=False)
    with pytest.raises(NoResult):
        gaia.submit(CALL, idempotency_key="untold").get()


def test_a_key_claimed_by_an_earlier_version_leads_to_its_call(gaia: Gaia, client: redis.Redis) -> None:
    first = gaia.submit(CALL, idempotency_key="old")
    client.hdel(keys.idempotency("old"), "deadline", "stored")
    assert gaia.submit(CALL, idempotency_key="old").id == first.id


def test_a_key_with_another_payload_names_the_first_call(gaia: Gaia, client: redis.Redis) -> None:
    first = gaia.submit(CALL, idempotency_key="order")
    with pytest.raises(KeyReused) as caught:
        gaia.submit(network.Resolve("b.example"), idempotency_key="order")
    assert (caught.value.key, caught.value.id) == ("order", first.id)
    assert len(queued(client)) == 1


def test_large_bodies_count_by_their_content(gaia: Gaia) -> None:
    call = files.Write("data:x", b"x" * 100_000)
    assert gaia.submit(call, idempotency_key="k").id == gaia.submit(call, idempotency_key="k").id
    with pytest.raises(KeyReused):
        gaia.submit(files.Write("data:x", b"y" * 100_000), idempotency_key="k")


def test_threads_that_race_for_a_key_get_one_call(redis_url: str, client: redis.Redis) -> None:
    ids: list[str] = []
    begin = threading.Barrier(8)

    def submit() -> None:
        with Gaia(redis_url) as own:
            begin.wait(10)
            ids.append(own.submit(CALL, idempotency_key="race").id)

    together([submit] * 8)
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert len(queued(client)) == 1


@pytest.mark.parametrize("key", ["", "x" * 513, 5, b"key", ["key"], "\ud800", True])
def test_a_key_is_a_short_string(gaia: Gaia, client: redis.Redis, key: Any) -> None:
    assert refused(lambda: gaia.submit(CALL, idempotency_key=key)).field == "idempotency_key"
    assert client.dbsize() == 0


@pytest.mark.parametrize("key", ["x" * 512, "ü\0\n", "*"])
def test_any_text_may_be_a_key(gaia: Gaia, key: str) -> None:
    assert gaia.submit(CALL, idempotency_key=key).id == gaia.submit(CALL, idempotency_key=key).id


# --- many


def test_many_calls_are_queued_in_order(gaia: Gaia, client: redis.Redis) -> None:
    found = gaia.submit_many(network.Resolve(f"{number}.example") for number in range(1200))
    assert [fields(each)["name"] for each in queued(client)] == [f"{number}.example" for number in range(1200)]
    assert [each["headers"]["id"] for each in queued(client)] == [each.unwrap().id for each in found]


def test_one_refused_call_of_many_fails_no_other(gaia: Gaia, client: redis.Redis) -> None:
    wrong = api.Request("http://h/", data={"a": 1})  # type: ignore[dict-item]
    calls: list[Any] = [CALL, wrong, api.Request("http://h/")]
    assert [each.ok for each in gaia.submit_many(calls)] == [True, False, True]
    assert len(queued(client)) == len(queued(client, "api")) == 1


def test_none_of_many_is_nothing(gaia: Gaia) -> None:
    assert gaia.submit_many([]) == []


# --- life


def together(what: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own; raise what one of them raised."""
    failures: list[BaseException] = []

    def run(each: Callable[[], None]) -> None:
        try:
            each()
        except BaseException as failure:  # noqa: BLE001 - to be raised in the test's thread
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(each,)) for each in what]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failures:
        raise failures[0]


def test_threads_share_it_from_the_first_call_on(redis_url: str, client: redis.Redis) -> None:
    with Gaia(redis_url) as g:
        begin = threading.Barrier(16)

        def submit() -> None:
            begin.wait(10)
            g.submit(CALL)
            g.pending("x", network.Resolve).ready()

        together([submit] * 16)
        assert len(g._clients) <= 2
    assert len(queued(client)) == 16


def test_it_may_be_closed_twice_and_used_again(redis_url: str, client: redis.Redis) -> None:
    g = Gaia(redis_url)
    g.close()
    for _ in range(2):
        g.submit(CALL)
        with pytest.raises(TimeoutError):
            g.pending("never", network.Resolve).get(0.01)
        g.close()
        g.close()
    assert len(queued(client)) == 2
    assert not [each for each in threading.enumerate() if each.name == "gaia-results"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(gaia: Gaia, client: redis.Redis) -> None:
    """The parent's thread, locks and sockets are of no use there."""
    gaia.submit(CALL)
    with pytest.raises(TimeoutError):
        gaia.pending("never", network.Resolve).get(0.01)
    gaia._lock.acquire()  # as a thread of the parent could at the moment of the fork
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            pending = gaia.submit(CALL)
            try:
                pending.get(0.01)
            except TimeoutError:
                os.write(writing, pending.id.encode())
        finally:
            os._exit(0)
    gaia._lock.release()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    assert [each["headers"]["id"] for each in queued(client)][1:] == [told]
    gaia.submit(CALL)
    assert len(queued(client)) == 3


# --- what an import brings


def python(script: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import gaia", ["gaia.client", "gaia.contracts", "celery", "kombu", "redis", "asyncio"]),
        ("from gaia import api, errors", ["gaia.client", "celery", "kombu", "redis"]),
        ("from gaia import Gaia", ["celery", "kombu", "requests", "pydantic", "psutil", "tasks", "config"]),
    ],
)
def test_an_import_brings_no_more_than_it_needs(statement: str, absent: list[str]) -> None:
    assert python(f"{statement}; import sys; print([each for each in {absent!r} if each in sys.modules])") == "[]"


def test_a_star_import_gives_every_public_name() -> None:
    names = python("from gaia import *; print(sorted(name for name in dir() if not name.startswith('_')))")
    assert names == repr(sorted(gaia_package.__all__))


def test_public_names_are_listed_and_others_do_not_exist() -> None:
    for name in gaia_package.__all__:
        assert getattr(gaia_package, name)
    with pytest.raises(AttributeError, match="module 'gaia' has no attribute 'nonsense'"):
        gaia_package.nonsense  # noqa: B018 - the access is the point

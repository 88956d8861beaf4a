"""Calls by the short way and by Celery's: nobody outside the worker can tell one from the other."""

import base64
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError

from gaia import Gaia, errors
from tests.support import cluster
from tests.support.evidence import started
from tests.support.probe import Append, CountErrors, Echo, Fail, Flaky, Hold, Leave
from tests.support.waiting import until

OWN = ("own", ())
OF_CELERY = [("threads", ("-P", "threads")), ("solo", ("-P", "solo"))]


@pytest.fixture
def foreign(redis_url: str) -> Iterator[Celery]:
    """A Celery app that knows nothing of Gaia but its Redis."""
    with Celery("foreign", broker=redis_url, backend=redis_url, set_as_current=False) as found:
        yield found


class Words:
    """A file to which calls add words."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, foreign: Celery, word: str, **options: Any) -> Any:
        fields = {"path": str(self.path), "word": word}
        return foreign.signature("probe.append", kwargs=fields, queue="probe", immutable=True, **options)

    def read(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []


def test_what_was_fetched_ahead_of_long_calls_goes_to_a_worker_with_free_slots(
    redis_url: str, tmp_path: Path, words: "Words"
) -> None:
    marks = str(tmp_path / "started"), str(tmp_path / "release")
    with Gaia(redis_url) as gaia, cluster.probe_worker(redis_url, log=tmp_path / "busy.log") as busy:
        for each in [gaia.submit(Echo("short")) for _ in range(100)]:
            each.get(timeout=60)  # now it fetches ahead
        long = [gaia.submit(Hold(*marks)) for _ in range(4)]
        until(lambda: started(marks) == 4, what="calls that take every slot")
        ahead = [gaia.submit(Append(str(words.path), str(number))) for number in range(4)]
        until(lambda: "went back to their queues" in busy.text(), what="some that were fetched ahead")
        assert not words.read()
        with cluster.probe_worker(redis_url, log=tmp_path / "free.log"):
            for each in ahead:
                each.get(timeout=60)
            assert gaia.stored(long[0].id) is None
            Path(marks[1]).touch()
            assert [each.get(timeout=60).text for each in long] == ["released"] * 4
        gaia.submit(Echo("last")).get(timeout=60)
    assert sorted(words.read()) == list("0123")


@pytest.fixture
def words(tmp_path: Path) -> Words:
    return Words(tmp_path / "words")


class Events:
    """What workers tell, from now on."""

    def __init__(self, client: "redis.Redis") -> None:
        self.pubsub = client.pubsub()
        self.pubsub.psubscribe("*celeryev*")
        self.heard: list[dict[str, Any]] = []

    def of(self, call_id: str, last: str) -> list[dict[str, Any]]:
        """Give the events of a call up to that one, in the order of their clock."""
        until(lambda: self._listen() or any(each["type"] == last for each in self._about(call_id)), what=last)
        return sorted(self._about(call_id), key=lambda each: each["clock"])

    def _about(self, call_id: str) -> list[dict[str, Any]]:
        return [each for each in self.heard if each.get("uuid") == call_id]

    def _listen(self) -> None:
        while (found := self.pubsub.get_message(timeout=0.1)) is not None:
            if found["type"] == "pmessage":
                told = json.loads(base64.b64decode(json.loads(found["data"])["body"]))
                self.heard += told if isinstance(told, list) else [told]


@pytest.fixture
def events(client: redis.Redis) -> Iterator[Events]:
    found = Events(client)
    yield found
    found.pubsub.close()


def test_a_link_is_followed_with_the_result(foreign: Celery, words: Words, probe_worker: cluster.Worker) -> None:
    words.of(foreign, "first").apply_async(link=words.of(foreign, "second")).get(timeout=20)
    until(lambda: words.read() == ["first", "second"])


def test_an_errback_is_called(foreign: Celery, words: Words, probe_worker: cluster.Worker) -> None:
    foreign.send_task("probe.fail", queue="probe", link_error=words.of(foreign, "failed"))
    until(lambda: words.read() == ["failed"])


def test_a_chain_a_group_and_a_chord_go_on(foreign: Celery, words: Words, probe_worker: cluster.Worker) -> None:
    chain(words.of(foreign, "a"), words.of(foreign, "b")).apply_async().get(timeout=20)
    assert words.read() == ["a", "b"]
    assert len(group(words.of(foreign, "c"), words.of(foreign, "d")).apply_async().get(timeout=20)) == 2
    chord([words.of(foreign, "e"), words.of(foreign, "f")], words.of(foreign, "g")).apply_async().get(timeout=20)
    assert words.read()[4:][-1] == "g"
    assert sorted(words.read()) == list("abcdefg")


def test_a_call_that_is_revoked_before_its_start_never_starts(
    gaia: Gaia, foreign: Celery, tmp_path: Path, probe_worker: cluster.Worker
) -> None:
    release = tmp_path / "release"
    holds = [gaia.submit(Hold(str(tmp_path / f"s{number}"), str(release))) for number in range(4)]
    until(lambda: all((tmp_path / f"s{number}").exists() for number in range(4)))
    queued = gaia.submit(Hold(str(tmp_path / "never"), str(release)))
    revoked = foreign.AsyncResult(queued.id)
    until(lambda: queued.id in repr(foreign.control.inspect(timeout=1).reserved()), what="the call among the reserved")
    foreign.control.revoke(queued.id, reply=True, timeout=5)
    release.touch()
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=20)
    assert not (tmp_path / "never").exists()
    assert [each.get(timeout=20).text for each in holds] == ["released"] * 4


def test_inspect_tells_what_runs_what_waits_and_how_much_there_is_room_for(
    gaia: Gaia, foreign: Celery, tmp_path: Path, probe_worker: cluster.Worker
) -> None:
    release = tmp_path / "release"
    holds = [gaia.submit(Hold(str(tmp_path / f"s{number}"), str(release))) for number in range(4)]
    until(lambda: all((tmp_path / f"s{number}").exists() for number in range(4)))
    inspect = foreign.control.inspect(timeout=1)
    ((active,), (stats,)) = (inspect.active() or {}).values(), (inspect.stats() or {}).values()
    assert {each["id"] for each in active} == {each.id for each in holds}
    assert {each["name"] for each in active} == {"probe.hold"}
    assert all(each["time_start"] <= time.time() and each["worker_pid"] == stats["pid"] for each in active)
    assert stats["pool"]["max-concurrency"] == 4
    before = stats["total"]["probe.hold"]
    release.touch()
    assert all(each.get(timeout=20) for each in holds)
    until(lambda: list((inspect.active() or {}).values()) == [[]])
    assert next(iter((inspect.stats() or {}).values()))["total"]["probe.hold"] == before


@pytest.mark.parametrize(
    ("call", "kinds"),
    [
        (Echo("hi", token="s3cr3t-token-of-mine"), ["task-received", "task-started", "task-succeeded"]),
        (Fail(token="s3cr3t-token-of-mine"), ["task-received", "task-started", "task-failed"]),
        (Flaky(succeed_at=2), ["task-received", "task-started", "task-retried"]),
    ],
    ids=["result", "error", "retry"],
)
def test_every_step_of_a_call_is_told(
    gaia: Gaia, events: Events, probe_worker: cluster.Worker, call: Echo | Fail | Flaky, kinds: list[str]
) -> None:
    pending = gaia.submit(call)
    told = events.of(pending.id, kinds[-1])
    assert [each["type"] for each in told][: len(kinds)] == kinds
    assert (told[0]["name"], told[0]["args"], told[0]["retries"]) == (call.OPERATION, "()", 0)
    assert "s3cr3t" not in json.dumps(told)
    if kinds[-1] == "task-succeeded":
        assert told[0]["kwargs"] == "{'text': 'hi', 'token': '***'}"
        assert told[-1]["result"] == "Seen(text='hi')"
        assert 0 < told[-1]["runtime"] < 20


def test_a_result_is_stored_in_the_same_form_either_way(
    foreign: Celery, client: redis.Redis, probe_worker: cluster.Worker
) -> None:
    metas = []
    for options in ({}, {"expires": 60}):  # what expires goes Celery's way
        sent = foreign.send_task("probe.echo", kwargs={"text": "x"}, queue="probe", **options)
        assert sent.get(timeout=20) == {"text": "x"}
        metas.append(json.loads(client.get(f"celery-task-meta-{sent.id}") or b""))
        assert metas[-1].pop("task_id") == sent.id
        assert metas[-1].pop("date_done").endswith("+00:00")
    assert list(metas[0].items()) == list(metas[1].items())


def test_a_service_that_wants_to_exit_ends_its_call_alone(gaia: Gaia, probe_worker: cluster.Worker) -> None:
    for _ in range(5):  # more than there are threads
        with pytest.raises(errors.InternalError) as caught:
            gaia.submit(Leave()).get(timeout=20)
        assert caught.value.kind == "SystemExit"
    assert gaia.submit(Echo("still here")).get(timeout=20).text == "still here"


def test_the_log_tells_of_a_success_and_of_an_expected_error(gaia: Gaia, probe_worker: cluster.Worker) -> None:
    done, failed = gaia.submit(Echo("logged")), gaia.submit(Flaky(succeed_at=9))
    done.get(timeout=20)
    with pytest.raises(errors.ConnectFailed):
        failed.get(timeout=20)
    until(lambda: f"Task probe.echo[{done.id}] succeeded in" in probe_worker.text())
    until(lambda: f"Task probe.flaky[{failed.id}] raised expected: ConnectFailed" in probe_worker.text())


@pytest.mark.parametrize(("pool", "options"), [OWN, *OF_CELERY], ids=["own", "threads", "solo"])
def test_under_celerys_command_every_pool_runs_calls(
    fresh_url: str, tmp_path: Path, pool: str, options: tuple[str, ...]
) -> None:
    argv = [sys.executable, "-m", "celery", "-A", "tests.support.probe_app", "worker", "-Q", "probe", *options]
    found = cluster.executed([*argv, "-c", "2", "-n", f"{pool}@%h"], {"GAIA_REDIS_URL": fresh_url}, tmp_path / "log")
    try:
        found.wait_ready()
        with Gaia(fresh_url) as gaia, redis.Redis.from_url(fresh_url) as client:
            assert [gaia.submit(Echo(str(each))).get(timeout=20).text for each in range(5)] == list("01234")
            assert gaia.submit(Flaky(succeed_at=3)).get(timeout=20).attempts == 3
            with pytest.raises(errors.InternalError):
                gaia.submit(Fail()).get(timeout=20)
            path = tmp_path / "words"
            assert gaia.submit(Append(str(path), "word")).get(timeout=20).text == "word"
            until(lambda: client.hlen("unacked") == 0, what="the end of every held record")
    finally:
        assert cluster.stop(found.process) == 0


@pytest.mark.parametrize("options", [{}, {"expires": 60}], ids=["express", "celery"])
def test_errors_of_ended_calls_do_not_wait_for_the_garbage_collector(
    probe_worker: cluster.Worker, gaia: Gaia, options: dict[str, float]
) -> None:
    for call in (Fail("hunter2222"), Flaky(4)) * 5:
        with pytest.raises(errors.GaiaError):
            gaia.submit(call, **options).get(timeout=30)
    # The thread that ended the last one may be at it still.
    until(lambda: gaia.submit(CountErrors()).get(timeout=30).text == "0", 10)

"""`gaia dead` and `gaia queues`, as they are typed."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from gaia import Gaia, message, wire
from gaia.contracts import api
from gaia.store import dead, history
from gaia.store.history import Event
from gaia.store.scripts import script
from tests.support import cluster

SECRET = "s3cr3t-of-a-header"


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


def gaia(url: str, *arguments: str | bytes) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [cluster.GAIA, *arguments],
        env={**cluster.clean_environ(), "GAIA_REDIS_URL": url, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=60,
    )


def bury(client: redis.Redis, call_id: str, *, reason: str = "a reason", error: str = "") -> None:
    """Make a dead letter of a request."""
    call: Any = api.Request("http://me:hidden@h/", headers={"authorization": SECRET})
    envelope = wire.Envelope(published_at=1_700_000_000.0, deadline=1_700_000_060.0)
    text = message.text_of(
        call, call.fields_json(), call_id=call_id, envelope=envelope, priority=0, expires_at=None, stored=False
    )
    letter = ["queue", "api", "list", "api", "reason", reason, "error", error, "message", text, "lost", "2"]
    script(client, "bury")(args=[call_id, *letter])


def test_a_letter_is_shown_redacted_with_its_history(fresh_url: str, client: redis.Redis) -> None:
    history.record(client, "an-id", Event(1_700_000_001.0, "attempt 1 failed", "h: refused"), life=1.0, left_s=60)
    bury(client, "an-id", error="h: refused again")
    done = gaia(fresh_url, "dead", "show", "an-id")
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    assert "hidden" not in done.stdout
    lines = {line[:12].rstrip(): line[13:] for line in done.stdout.splitlines()}
    assert lines["operation"] == "api.request"
    assert lines["submitted"] == "2023-11-14 22:13:20+00:00"
    assert lines["history"] == "2023-11-14 22:13:21+00:00 attempt 1 failed: h: refused"
    assert (lines["error"], lines["lost leases"], lines["attempts"]) == ("h: refused again", "2", "1")
    assert SECRET not in repr(Gaia(fresh_url).dead.show("an-id"))


def test_a_list_shows_each_id_whole_and_no_markup_of_others(fresh_url: str, client: redis.Redis) -> None:
    call_id = message.new_id()
    bury(client, call_id, reason="no operation is called [/x] \x1b[31m" + "y" * 300)
    done = gaia(fresh_url, "dead", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert f" {call_id} " in done.stdout
    assert " api.request " in done.stdout
    assert "[/x]" in done.stdout
    shown = gaia(fresh_url, "dead", "show", call_id)
    assert "\x1b" not in done.stdout + shown.stdout


def test_garbage_is_shown_as_far_as_it_goes(fresh_url: str, client: redis.Redis) -> None:
    dead.park(client, queue="api", reason="no message", message=b"\xff\xfe")
    letter_id = next(iter(Gaia(fresh_url).dead.ids()))
    assert letter_id in gaia(fresh_url, "dead", "list").stdout
    shown = gaia(fresh_url, "dead", "show", letter_id)
    assert (shown.returncode, "unknown" in shown.stdout) == (0, True)
    refused = gaia(fresh_url, "dead", "replay", letter_id)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "is no call" in refused.stderr


def test_letters_are_replayed_and_dropped_by_name_or_all(fresh_url: str, client: redis.Redis) -> None:
    for each in "abcd":
        bury(client, each)
    assert gaia(fresh_url, "dead", "replay", "a").stdout == "a queued again\n"
    assert gaia(fresh_url, "dead", "drop", "b").stdout == "b dropped\n"
    assert gaia(fresh_url, "dead", "replay", "--all").stdout == "c queued again\nd queued again\n"
    assert client.llen("api") == 3
    assert gaia(fresh_url, "dead", "list").stdout == "no dead letters\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["dead", "show", "nothing"], 1, "there is no dead letter nothing"),
        (["dead", "show", b"\xff"], 1, "there is no dead letter"),
        (["dead", "show", ""], 1, "there is no dead letter"),
        (["dead", "show", "\x1b[31m"], 1, "there is no dead letter"),
        (["dead", "show"], 2, "ID"),
        (["dead", "replay"], 2, "name one or more ids, or --all"),
        (["dead", "drop", "a", "--all"], 2, "name one or more ids, or --all"),
        (["dead", "replay", "nothing", b"\xff"], 1, "there is no dead letter nothing"),
        (["dead", "list", "--limit", "0"], 2, "--limit"),
        (["queues", "pause", "apis"], 1, "must be a queue (api, files, browser, process, network)"),
        (["queues", "pause", "api.reqest"], 1, "api.request"),
        (["queues", "pause", b"\xff"], 1, "must be a queue"),
        (["queues", "resume", "apis"], 1, "must be a queue"),
        (["queues", "puase", "api"], 2, "puase"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line(fresh_url: str, arguments: list[str | bytes], code: int, told: str) -> None:
    done = gaia(fresh_url, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert told in done.stderr
    assert "\x1b" not in done.stderr


def test_a_pause_is_told_and_undone(fresh_url: str) -> None:
    assert gaia(fresh_url, "queues", "pause", "api.request").stdout == "api.request is paused\n"
    assert "paused operations: api.request" in gaia(fresh_url, "queues").stdout
    assert gaia(fresh_url, "queues", "resume", "api.request").stdout == "api.request runs again\n"

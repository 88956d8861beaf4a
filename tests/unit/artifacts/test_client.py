"""`Gaia.put` and `open`, and bodies within calls, against a real server and without a worker."""

import io
import json
import os
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from gaia import Gaia, api, codec, files, process
from gaia.codec import Artifact, Body
from gaia.errors import (
    ArtifactMissing,
    ArtifactTooLarge,
    BodyTooLarge,
    InvalidCall,
    KeyReused,
    NotConfigured,
    PayloadTooLarge,
    Unreachable,
)
from gaia.store import keys

MIB = 1024 * 1024
HOUR_S = 3600


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "artifacts"
    found.mkdir()
    return found


@pytest.fixture
def gaia(fresh_url: str, directory: Path) -> Iterator[Gaia]:
    with Gaia(fresh_url, artifacts_url=str(directory)) as found:
        yield found


@pytest.fixture
def plain(fresh_url: str) -> Iterator[Gaia]:
    """A producer without a directory."""
    with Gaia(fresh_url) as found:
        yield found


def queued(client: "redis.Redis", queue: str) -> dict[str, Any]:
    """Give the fields of the call that was queued last."""
    text = client.lindex(queue, 0)
    assert isinstance(text, bytes)
    fields = json.loads(b64decode(json.loads(text)["body"]))[1]
    assert isinstance(fields, dict)
    return fields


def lives_s(directory: Path) -> list[float]:
    now = time.time()
    return sorted(each.stat().st_mtime - now for each in directory.glob("?/?/*"))


# --- put and open


@pytest.mark.parametrize("size_bytes", [0, 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
def test_what_was_put_is_opened(gaia: Gaia, tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "body"
    path.write_bytes(os.urandom(size_bytes))
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        with gaia.open(gaia.put(source, media_type="a/b")) as file:
            assert file.read() == path.read_bytes()


def test_up_to_8_mib_lie_in_redis_and_more_in_the_directory(gaia: Gaia, client: "redis.Redis", directory: Path) -> None:
    small, large = gaia.put(bytes(8 * MIB)), gaia.put(bytes(8 * MIB + 1))
    assert client.keys("*") == [keys.artifact(small.id).encode()]
    assert [each.name for each in directory.glob("?/?/*")] == [large.id]


def test_without_a_directory_a_large_body_is_refused_and_the_mend_named(plain: Gaia, client: "redis.Redis") -> None:
    for source in (bytes(8 * MIB + 1), io.BytesIO(bytes(8 * MIB + 1))):
        with pytest.raises(ArtifactTooLarge, match=r"GAIA_ARTIFACTS__URL.*`put`"):
            plain.put(source)
    assert client.keys("*") == []


def test_without_a_directory_a_large_body_cannot_be_opened(gaia: Gaia, plain: Gaia) -> None:
    found = gaia.put(bytes(9 * MIB))
    with pytest.raises(NotConfigured, match="GAIA_ARTIFACTS__URL"):
        plain.open(found)


@pytest.mark.parametrize(("keep", "lasts_s"), [(0, HOUR_S), (10, HOUR_S), (7200.0, 7200), (timedelta(days=2), 172_800)])
def test_a_body_is_kept_as_long_as_asked_and_an_hour_at_least(
    gaia: Gaia, client: "redis.Redis", directory: Path, keep: float | timedelta, lasts_s: int
) -> None:
    found = gaia.put(b"x", keep=keep)
    assert lasts_s - 30 <= client.ttl(keys.artifact(found.id)) <= lasts_s + 1
    gaia.put(bytes(9 * MIB), keep=keep)
    assert lasts_s - 30 <= lives_s(directory)[0] <= lasts_s + 1


@pytest.mark.parametrize("keep", [-1, float("nan"), float("inf"), 1e12, timedelta(days=-1), "soon", None])
def test_a_duration_that_is_none_is_refused(gaia: Gaia, keep: Any) -> None:
    with pytest.raises(InvalidCall, match="'keep'"):
        gaia.put(b"x", keep=keep)


def test_a_server_that_is_away_is_unreachable() -> None:
    with Gaia("redis://:geheim@127.0.0.1:1/0") as g:
        for use in (lambda: g.put(b"x"), lambda: g.open(Artifact("0" * 32, 1, ""))):
            with pytest.raises(Unreachable) as caught:
                use()
            assert "geheim" not in str(caught.value)


# --- in calls


def test_an_artifact_stands_for_the_bytes_of_a_call(gaia: Gaia, client: "redis.Redis") -> None:
    found = gaia.put(b"x")
    reference = {"$artifact": {"id": found.id, "size_bytes": 1, "sha256": found.sha256, "media_type": found.media_type}}
    gaia.submit(files.Write("data:x", body=found))
    assert queued(client, "files")["body"] == reference
    gaia.submit(api.Request("http://a.example/", method="POST", body=found))
    assert queued(client, "api")["body"] == reference
    gaia.submit(process.Run(("/bin/cat",), stdin=found))
    assert queued(client, "process")["stdin"] == reference
    call = files.Write.from_json({"path": "data:x", "body": reference}, gaia.artifacts())
    assert codec.content(call.body) == b"x"


def test_a_call_shows_nothing_of_an_artifact() -> None:
    found = Artifact("0" * 32, 5, "1" * 64)
    assert repr(files.Write("data:x", body=found)) == "Write(path='data:x', body=<Artifact>)"


def test_an_artifact_is_no_json_value(gaia: Gaia) -> None:
    call = api.Request("http://a.example/", method="POST", json={"a": [Artifact("0" * 32, 1, "")]})
    with pytest.raises(InvalidCall, match="json"):
        gaia.submit(call)


def test_a_call_never_fetched_has_no_content() -> None:
    with pytest.raises(TypeError):
        codec.content(Artifact("0" * 32, 1, ""))


def test_a_call_with_a_body_that_is_gone_is_refused(gaia: Gaia, client: "redis.Redis", directory: Path) -> None:
    small, large = gaia.put(b"x"), gaia.put(bytes(9 * MIB))
    client.delete(keys.artifact(small.id))
    next(directory.glob("?/?/*")).unlink()
    for each in (small, large, Artifact("../../etc/passwd", 1, ""), Artifact("../../etc/passwd", 9 * MIB, "")):
        with pytest.raises(ArtifactMissing):
            gaia.submit(files.Write("data:x", body=each))
    assert client.llen("files") == 0


@pytest.mark.parametrize("put_before", [False, True])
@pytest.mark.parametrize("size_bytes", [MIB, 9 * MIB])
@pytest.mark.parametrize(("delay", "deadline", "lasts_s"), [(None, 10, HOUR_S), (50_000, 20_000, 73_600)])
def test_a_body_outlives_its_call(
    gaia: Gaia,
    client: "redis.Redis",
    directory: Path,
    *,
    put_before: bool,
    size_bytes: int,
    delay: float | None,
    deadline: float,
    lasts_s: float,
) -> None:
    body = gaia.put(bytes(size_bytes)) if put_before else bytes(size_bytes)
    gaia.submit(files.Write("data:x", body=body), delay=delay, deadline=deadline)
    lives = [client.ttl(each) for each in client.scan_iter("gaia:artifact:*")] + lives_s(directory)
    assert len(lives) == 1
    assert lasts_s - 30 <= lives[0] <= lasts_s + 20


def test_a_payload_of_100_mb_is_refused_at_submit_naming_put(plain: Gaia, client: "redis.Redis") -> None:
    with pytest.raises(BodyTooLarge, match="`put`"):
        plain.submit(files.Write("data:x", body=bytes(100_000_000)))
    with pytest.raises(PayloadTooLarge, match="`put`"):
        plain.submit(api.Request("http://a.example/", method="POST", json="x" * 100_000_000))
    assert client.keys("*") == []


def test_with_a_directory_a_payload_of_100_mb_is_queued(gaia: Gaia, client: "redis.Redis", directory: Path) -> None:
    gaia.submit(files.Write("data:x", body=bytes(100_000_000)))
    assert queued(client, "files")["body"]["$artifact"]["size_bytes"] == 100_000_000
    assert [each.stat().st_size for each in directory.glob("?/?/*")] == [100_000_000]


@dataclass(frozen=True)
class Two:
    first: Body
    second: Body


def bodies(client: "redis.Redis", directory: Path) -> int:
    return len(list(client.scan_iter("gaia:artifact:*"))) + len(list(directory.glob("*/?/*")))


@pytest.mark.parametrize("size_bytes", [MIB, 9 * MIB])
def test_a_call_that_is_refused_leaves_no_body(
    gaia: Gaia, client: "redis.Redis", directory: Path, size_bytes: int
) -> None:
    lost = Artifact("0" * 32, size_bytes, "")
    with pytest.raises(ArtifactMissing):
        codec.encode(Two(bytes(size_bytes), lost), gaia.artifacts())
    with pytest.raises(codec.Mismatch, match="second"):
        codec.encode(Two(bytes(size_bytes), "text"), gaia.artifacts())  # type: ignore[arg-type]
    with pytest.raises(PayloadTooLarge):
        gaia.submit(api.Request("http://a.example/", method="POST", body=bytes(size_bytes), params={"a": "x" * MIB}))
    assert bodies(client, directory) == 0


@pytest.mark.parametrize("size_bytes", [MIB, 9 * MIB])
def test_a_call_that_is_led_to_an_earlier_one_leaves_no_second_body(
    gaia: Gaia, client: "redis.Redis", directory: Path, size_bytes: int
) -> None:
    put = gaia.put(bytes(size_bytes))
    first = gaia.submit(files.Write("data:x", body=bytes(size_bytes)), idempotency_key="k")
    assert gaia.submit(files.Write("data:x", body=bytes(size_bytes)), idempotency_key="k").id == first.id
    assert gaia.submit(files.Write("data:x", body=put), idempotency_key="k").id == first.id
    with pytest.raises(KeyReused):
        gaia.submit(files.Write("data:y", body=bytes(size_bytes)), idempotency_key="k")
    assert bodies(client, directory) == 2
    gaia.open(put).close()


def test_a_body_that_cannot_be_discarded_hides_no_error(fresh_url: str, directory: Path) -> None:
    with Gaia(fresh_url, artifacts_url=str(directory)) as g:
        session = g.artifacts().session()
        session.put(bytes(9 * MIB))
        session.put(b"x")
        (kept,) = directory.glob("?/?/*")
        directory.rename(directory.with_name("unmounted"))
        session.discard()
    assert (directory.with_name("unmounted") / kept.relative_to(directory)).exists()


def test_an_artifact_made_by_hand_is_checked_by_its_fields(gaia: Gaia) -> None:
    for bad, field in ((Artifact("0" * 32, "1", ""), "size_bytes"), (Artifact(b"0", 1, ""), "id")):  # type: ignore[arg-type]
        with pytest.raises(InvalidCall, match=rf"'body\.{field}' must be"):
            gaia.submit(files.Write("data:x", body=bad))
    with pytest.raises(InvalidCall, match="'artifact' must be what `put` gave, got str"):
        gaia.open("0" * 32)  # type: ignore[arg-type]


@pytest.mark.parametrize("media_type", [None, 7, "", "a" * 256, "a/b\n", "\ud800"])
def test_a_media_type_that_is_none_is_refused(gaia: Gaia, media_type: Any) -> None:
    with pytest.raises(InvalidCall, match="'media_type' must have 1 to 255"):
        gaia.put(b"x", media_type=media_type)


# --- idempotency keys


@pytest.mark.parametrize("size_bytes", [MIB, 9 * MIB])
def test_bodies_count_by_their_content_under_a_key(gaia: Gaia, size_bytes: int) -> None:
    body = os.urandom(size_bytes)
    first = gaia.submit(files.Write("data:x", body=body), idempotency_key="k")
    for again in (body, gaia.put(body), gaia.put(body, media_type="a/b")):
        assert gaia.submit(files.Write("data:x", body=again), idempotency_key="k").id == first.id
    with pytest.raises(KeyReused):
        gaia.submit(files.Write("data:x", body=gaia.put(body + b"x")), idempotency_key="k")

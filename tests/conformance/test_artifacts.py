"""Whatever keeps large bodies gives back what was put, whole and verified, and nothing else."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from threading import Barrier
from typing import BinaryIO

import pytest
import redis

from gaia.codec import Artifact
from gaia.errors import ArtifactMissing, BodyOverMemory, FileFailed, FileMissing, InvalidCall
from gaia.store import keys
from gaia.store.artifacts import LIMIT_BYTES, MEMORY_BYTES, Artifacts, RedisArtifacts
from gaia.store.directory import DirectoryArtifacts
from tests.support.cluster import ROOT

TTL_S = 3600.0
FORGED = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "../../../../../../../etc/passwd",
    "/etc/passwd",
    "0" * 31,
    "0" * 33,
    "0" * 1_000_000,
    "0" * 32 + "\n",
    "0" * 31 + "\0",
    "A" * 32,
    "\uff10" * 32,
    "0/../" + "0" * 27,
    "ü" * 32,
    "\ud800" * 32,
    "*",
]


@dataclass
class Time:
    """What the stores take for the time."""

    moment: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.moment


@dataclass
class InRedis:
    """Bodies in Redis; time passes by shortening what is left of each key."""

    client: redis.Redis
    url: str
    largest_bytes: int = LIMIT_BYTES
    directory: Path | None = None

    def store(self, ttl_s: float = TTL_S, memory_bytes: int = MEMORY_BYTES) -> Artifacts:
        return Artifacts(RedisArtifacts(self.client, ttl_s=ttl_s), memory_bytes=memory_bytes)

    def names(self) -> list[str]:
        return sorted(each.decode().rpartition(":")[2] for each in self.client.scan_iter("gaia:artifact:*"))

    def replace(self, artifact: Artifact, body: bytes) -> None:
        self.client.set(keys.artifact(artifact.id), body, keepttl=True)

    def remove(self, artifact: Artifact) -> None:
        self.client.delete(keys.artifact(artifact.id))

    def pass_time(self, seconds: float) -> None:
        for each in self.client.scan_iter("gaia:artifact:*"):
            # A time that is over deletes the key.
            self.client.pexpire(each, self.client.pttl(each) - int(seconds * 1000))


@dataclass
class InDirectory:
    """Bodies in a directory, the small ones, too; time is the store's clock."""

    client: redis.Redis
    url: str
    directory: Path
    largest_bytes: int = 40 * 1024 * 1024
    now: Time = field(default_factory=Time)

    def store(self, ttl_s: float = TTL_S, memory_bytes: int = MEMORY_BYTES) -> Artifacts:
        large = DirectoryArtifacts(self.directory, ttl_s=ttl_s, now=self.now)
        return Artifacts(RedisArtifacts(self.client), large, limit_bytes=0, memory_bytes=memory_bytes)

    def names(self) -> list[str]:
        return sorted(each.name for each in self.directory.glob("?/?/*"))

    def replace(self, artifact: Artifact, body: bytes) -> None:
        path = self.path(artifact)
        expires_at = path.stat().st_mtime
        path.write_bytes(body)
        os.utime(path, (expires_at, expires_at))

    def remove(self, artifact: Artifact) -> None:
        self.path(artifact).unlink()

    def path(self, artifact: Artifact) -> Path:
        return self.directory / artifact.id[0] / artifact.id[1] / artifact.id

    def pass_time(self, seconds: float) -> None:
        self.now.moment += seconds


Place = InRedis | InDirectory


@pytest.fixture(params=["redis", "directory"])
def place(request: pytest.FixtureRequest, fresh_url: str, tmp_path: Path) -> Iterator[Place]:
    with redis.Redis.from_url(fresh_url) as client:
        directory = tmp_path / "artifacts"
        directory.mkdir()
        yield InRedis(client, fresh_url) if request.param == "redis" else InDirectory(client, fresh_url, directory)


class Stream(io.RawIOBase):
    """A source of so many bytes, of which nobody knows the number beforehand, given in odd portions."""

    def __init__(self, size_bytes: int) -> None:
        self.left = size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self.left, 77_777)
        buffer[:count] = bytes(count)
        self.left -= count
        return count


def missing(read: Callable[[], object], reason: str) -> None:
    with pytest.raises(ArtifactMissing, match=reason):
        read()


def drained(file: BinaryIO) -> bytes:
    with file:
        return file.read()


def read_in_portions(store: Artifacts, artifact: Artifact, into: bytearray) -> None:
    with store.open(artifact) as file:
        while chunk := file.read(1000):
            into += chunk


# --- what was put comes back


def test_bytes_come_back(place: Place) -> None:
    store, body = place.store(), os.urandom(100_000)
    artifact = store.put(body, media_type="image/png")
    assert artifact == Artifact(artifact.id, len(body), sha256(body).hexdigest(), "image/png")
    assert store.get(artifact) == body
    assert drained(store.open(artifact)) == body
    assert place.names() == [artifact.id]


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda body: memoryview(body[::-1])[::-1]])
def test_what_is_as_good_as_bytes_comes_back(place: Place, kind: Callable[[bytes], bytes]) -> None:
    store = place.store()
    assert store.get(store.put(kind(b"\0\xff"))) == b"\0\xff"


def test_an_empty_body_comes_back(place: Place) -> None:
    store = place.store()
    artifact = store.put(b"")
    assert store.get(artifact) == b""
    assert drained(store.open(artifact)) == b""


def test_a_file_comes_back_from_its_path(place: Place, tmp_path: Path) -> None:
    path, store = tmp_path / "body", place.store()
    path.write_bytes(os.urandom(3_000_000))
    assert store.get(store.put(path)) == path.read_bytes()


def test_of_an_open_file_the_rest_is_put_and_it_stays_open(place: Place) -> None:
    store, file = place.store(), io.BytesIO(b"head,rest")
    file.seek(5)
    assert store.get(store.put(file)) == b"rest"
    assert not file.closed


def test_a_large_body_streams_in_and_out(place: Place) -> None:
    store, size_bytes, count = place.store(), place.largest_bytes, 0
    artifact = store.put(Stream(size_bytes))
    assert artifact.size_bytes == size_bytes
    with store.open(artifact) as file:
        while chunk := file.read(100_003):
            assert len(chunk) <= 100_003
            count += len(chunk)
    assert count == size_bytes


def test_an_open_body_is_a_file_to_read(place: Place) -> None:
    store = place.store()
    with store.open(store.put(b"one\ntwo\nthree")) as file:
        assert file.readable()
        assert file.readline() == b"one\n"
        assert list(file) == [b"two\n", b"three"]
        assert file.read() == b""


def test_the_same_content_twice_is_two_bodies(place: Place) -> None:
    store = place.store()
    one, other = store.put(b"x"), store.put(b"x")
    assert one.id != other.id
    assert one.sha256 == other.sha256
    place.remove(one)
    assert store.get(other) == b"x"


def test_many_put_at_once(place: Place) -> None:
    store, contents = place.store(), [os.urandom(200_000) for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        artifacts = list(threads.map(store.put, contents))
        assert list(threads.map(store.get, artifacts)) == contents
    assert place.names() == sorted(each.id for each in artifacts)


# --- what cannot be put


def test_a_path_that_names_no_file_is_refused(place: Place, tmp_path: Path) -> None:
    store = place.store()
    with pytest.raises(FileMissing):
        store.put(tmp_path / "nothing")
    with pytest.raises(FileFailed, match="directory"):
        store.put(tmp_path)
    with pytest.raises(FileFailed):
        store.put(Path("a\0b"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFailed, match="no regular file"):
        store.put(tmp_path / "pipe")


@pytest.mark.parametrize("source", ["text", 7, None, io.StringIO("text")], ids=["text", "number", "none", "text file"])
def test_a_source_that_gives_no_bytes_is_refused(place: Place, source: object) -> None:
    with pytest.raises(InvalidCall, match="bytes"):
        place.store().put(source)  # type: ignore[arg-type]
    assert place.names() == []


def test_a_source_that_fails_under_way_leaves_nothing(place: Place) -> None:
    class Failing(Stream):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            if self.left < 5_000_000:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    with pytest.raises(FileFailed, match="Input/output error"):
        place.store().put(Failing(6_000_000))
    assert place.names() == []
    assert place.directory is None or not list(place.directory.glob("incoming/*"))


def test_a_closed_file_is_refused(place: Place) -> None:
    file = io.BytesIO(b"x")
    file.close()
    with pytest.raises(FileFailed):
        place.store().put(file)


# --- what is not there


def test_a_body_that_was_removed_is_missing(place: Place) -> None:
    store = place.store()
    artifact = store.put(b"x")
    place.remove(artifact)
    for read in (store.get, store.open, store.refer):
        missing(lambda read=read: read(artifact), "is not stored")  # type: ignore[misc]


@pytest.mark.parametrize("forged", FORGED, ids=lambda name: ascii(name)[:40])
def test_a_forged_id_names_nothing(place: Place, forged: str) -> None:
    store = place.store()
    real = store.put(b"x")
    for read in (store.get, store.open, store.refer):
        with pytest.raises(ArtifactMissing, match="is no artifact id") as caught:
            read(replace(real, id=forged))
        assert len(caught.value.id) <= 64
        # It goes into lines of logs.
        assert caught.value.id.isascii()
        assert caught.value.id.isprintable()


def test_an_id_that_was_never_given_is_missing(place: Place) -> None:
    store = place.store()
    real = store.put(b"x")
    missing(lambda: store.get(replace(real, id="0123456789abcdef" * 2)), "is not stored")


@pytest.mark.parametrize("size_bytes", [-1, 0, 2, LIMIT_BYTES])
def test_a_body_of_another_size_is_refused(place: Place, size_bytes: int) -> None:
    store = place.store()
    forged = replace(store.put(b"x"), size_bytes=size_bytes)
    for read in (store.get, store.open):
        with pytest.raises(ArtifactMissing):
            read(forged)


def test_a_body_that_was_cut_or_grew_is_refused(place: Place) -> None:
    store = place.store()
    artifact = store.put(b"0123456789")
    for body in (b"012345678", b"0123456789a", b""):
        place.replace(artifact, body)
        for read in (store.get, store.open):
            missing(lambda read=read: read(artifact), "does not have its size")  # type: ignore[misc]


def test_a_body_that_was_changed_never_comes_back_whole(place: Place) -> None:
    store, body = place.store(), bytearray(os.urandom(3_000_000))
    artifact = store.put(bytes(body))
    body[1_500_000] ^= 1
    place.replace(artifact, bytes(body))
    missing(lambda: store.get(artifact), "does not match its checksum")
    missing(lambda: drained(store.open(artifact)), "does not match its checksum")
    got = bytearray()
    missing(lambda: read_in_portions(store, artifact, got), "does not match its checksum")
    assert len(got) < len(body)


@pytest.mark.parametrize("digest", ["", "0" * 64, "x"])
def test_a_forged_checksum_is_refused(place: Place, digest: str) -> None:
    store = place.store()
    forged = replace(store.put(b"x"), sha256=digest)
    missing(lambda: store.get(forged), "does not match its checksum")
    missing(lambda: drained(store.open(forged)), "does not match its checksum")


def test_a_body_too_large_for_memory_is_not_taken_there(place: Place) -> None:
    store = place.store()
    artifact = store.put(b"x")
    with pytest.raises(BodyOverMemory, match=f"artifact {artifact.id}.*GAIA_ARTIFACTS__MEMORY_BYTES"):
        store.get(replace(artifact, size_bytes=1 << 60))


def test_the_bodies_of_one_message_are_bounded_together(place: Place) -> None:
    store = place.store()
    a, b, c = (store.put(bytes([each]) * 1000) for each in range(3))
    bounded = place.store(memory_bytes=2500).session()
    assert bounded.get(a) + bounded.get(b) == bytes(1000) + b"\1" * 1000
    with pytest.raises(BodyOverMemory, match="GAIA_ARTIFACTS__MEMORY_BYTES"):
        bounded.get(c)
    assert bounded.get(a) is bounded.get(a)
    assert place.store(memory_bytes=2500).session().get(c) == b"\2" * 1000


def test_what_was_put_in_a_session_is_discarded_and_nothing_else(place: Place) -> None:
    store = place.store()
    kept, gone = store.put(b"x"), store.put(b"y")
    session = store.session()
    session.put(b"z")
    store.remove(session.put(b"z"))
    session.refer(kept)
    store.remove(gone)
    store.remove(gone)
    session.discard()
    session.discard()
    assert place.names() == [kept.id]
    with pytest.raises(ArtifactMissing):
        store.remove(replace(kept, id="../" + kept.id))


# --- expiry


def test_a_body_expires(place: Place) -> None:
    store = place.store(ttl_s=100)
    artifact = store.put(b"x")
    place.pass_time(99)
    assert store.get(artifact) == b"x"
    place.pass_time(2)
    for read in (store.get, store.open, store.refer):
        missing(lambda read=read: read(artifact), "has expired")  # type: ignore[misc]


def test_a_body_that_is_referred_to_is_kept_as_long_as_a_new_one(place: Place) -> None:
    artifact = place.store(ttl_s=100).put(b"x")
    place.pass_time(50)
    assert place.store(ttl_s=100).refer(artifact) == artifact
    place.pass_time(99)
    assert place.store().get(artifact) == b"x"
    place.pass_time(2)
    missing(lambda: place.store().get(artifact), "has expired")


def test_referring_never_shortens_a_life(place: Place) -> None:
    artifact = place.store(ttl_s=1000).put(b"x")
    place.store(ttl_s=10).refer(artifact)
    place.pass_time(900)
    assert place.store().get(artifact) == b"x"


def test_of_many_that_refer_at_once_the_longest_life_wins(place: Place) -> None:
    lives_s = [100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            artifact = place.store(ttl_s=10).put(b"x")
            at_once = Barrier(8)

            def refer(ttl_s: float, artifact: Artifact = artifact, at_once: Barrier = at_once) -> None:
                store = place.store(ttl_s=ttl_s)
                at_once.wait(10)
                store.refer(artifact)

            list(threads.map(refer, lives_s))
            place.pass_time(790)
            assert place.store().get(artifact) == b"x"


def test_an_open_body_is_read_to_its_end_though_it_expires(place: Place) -> None:
    store, body = place.store(ttl_s=100), os.urandom(3_000_000)
    with store.open(store.put(body)) as file:
        first = file.read(10)
        place.pass_time(200)
        assert first + file.read() == body


# --- a dead writer


def test_a_killed_writer_leaves_no_readable_half(place: Place) -> None:
    script = "import sys; from gaia import Gaia; Gaia(*sys.argv[1:]).put(sys.stdin.buffer)"
    urls = [place.url, place.url, *([str(place.directory)] if place.directory else [])]
    writer = subprocess.Popen([sys.executable, "-c", script, *urls], stdin=subprocess.PIPE, cwd=ROOT)
    assert writer.stdin
    # A pipe holds 64 KiB: what was written beyond that was read.
    writer.stdin.write(bytes(12_000_000 if place.directory else 6_000_000))
    writer.stdin.flush()
    writer.kill()
    writer.stdin.close()
    assert writer.wait(20) == -9
    assert place.names() == []

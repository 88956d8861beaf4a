"""Streams between files and artifacts, and disks that are full, read-only or another machine's."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from config import settings
from gaia.contracts import files
from gaia.errors import (
    ArtifactMissing,
    Cancelled,
    DeadlineExceeded,
    DiskFull,
    FileFailed,
    GaiaError,
    InvalidCall,
    LimitExceeded,
    PathDenied,
    PoolExhausted,
    RootMismatch,
    RootUnavailable,
)
from gaia.store.artifacts import Artifacts, RedisArtifacts
from gaia.store.directory import DirectoryArtifacts
from gaia.store.limits import Limit
from gaia.store.roster import KnownRoot, Roster
from tasks.files.meter import Meter
from tasks.files.pacing import paced
from tasks.files.service import FilesService
from tasks.limits.cluster import Limits
from tasks.limits.policy import Policy
from tasks.roots.roots import Roots
from tasks.scope import Elsewhere, Scope
from tests.support.disks import NotPermittedError, mounted
from tests.support.waiting import until
from tests.unit.files.conftest import Door, descriptors


@pytest.fixture
def store(client: "redis.Redis", tmp_path: Path) -> Artifacts:
    shared = tmp_path / "artifacts"
    shared.mkdir()
    return Artifacts(RedisArtifacts(client), DirectoryArtifacts(shared))


@pytest.mark.parametrize("size", [0, 1000, 300_000, 9_000_000])
def test_a_file_goes_to_an_artifact_and_back(door: Door, store: Artifacts, size: int) -> None:
    body = os.urandom(size)
    (door.root / "f").write_bytes(body)
    door.service._streamer._artifacts = store
    sent = door(files.Stream(path="data:f", media_type="x/y"))
    assert sent.artifact is not None
    assert (sent.size_bytes, sent.sha256, sent.artifact.media_type) == (size, sent.artifact.sha256, "x/y")
    back = door(files.Stream(artifact=sent.artifact, target="data:sub/g"))
    assert (back.size_bytes, back.sha256, back.artifact) == (size, sent.sha256, None)
    assert (door.root / "sub/g").read_bytes() == body
    assert door(files.Stream(path="data:f", target="data:h")).sha256 == sent.sha256


def test_an_artifact_that_is_gone_or_wrong_leaves_no_file(door: Door, store: Artifacts) -> None:
    door.service._streamer._artifacts = store
    artifact = store.put(b"x" * 1000)
    store.remove(artifact)
    with pytest.raises(ArtifactMissing):
        door(files.Stream(artifact=artifact, target="data:g"))
    for wrong in ({"artifact": artifact}, {}, {"path": "data:f", "artifact": artifact, "target": "data:g"}):
        with pytest.raises(InvalidCall):
            files.Stream(**wrong)
    assert door.names() == ["sub"]


def test_a_stream_tells_its_progress_and_ends_at_the_next_chunk(door: Door) -> None:
    (door.root / "f").write_bytes(bytes(3 << 20))
    told: list[float] = []

    def report(done: float, total: float | None, note: str) -> None:
        told.append(done)
        if len(told) == 3:
            door.scope.cancelled.set()

    door.scope = Scope("1", "files.stream", door.scope.ends_at, report=report)
    with pytest.raises(Cancelled):
        door(files.Stream(path="data:f", target="data:g"))
    assert told == [256 * 1024, 512 * 1024, 768 * 1024]
    assert door.names() == ["f", "sub"]


def test_a_pace_bounds_every_chunk(door: Door) -> None:
    (door.root / "f").write_bytes(bytes(100_000))
    asked: list[int] = []

    def pace(size: int, scope: Scope) -> int:
        asked.append(size)
        return min(size, 40_000)

    service = FilesService(roots=door.roots, pace=pace)
    assert service.stream(files.Stream(path="data:f", target="data:g"), door.scope).size_bytes == 100_000
    assert len(asked) == 4


def test_a_stream_moves_at_the_pace_of_the_byte_bucket(door: Door) -> None:
    (door.root / "f").write_bytes(bytes(300_000))
    limit = Limit(bytes_per_s=1_000_000, burst_bytes=100_000)
    limits = Limits.in_memory(Policy(settings.Limits(), {"key:files": limit}))
    service = FilesService(roots=door.roots, pace=paced(limits))
    found = service.stream(files.Stream(path="data:f", target="data:g"), door.scope)
    # 100 000 at once, and the rest as it comes: never sooner, how much later is the machine's affair.
    assert found.elapsed_s >= 0.19
    slow = Limits.in_memory(Policy(settings.Limits(), {"key:files": Limit(bytes_per_s=1, burst_bytes=1)}))
    service = FilesService(roots=door.roots, pace=paced(slow))
    with pytest.raises((LimitExceeded, DeadlineExceeded)):
        service.stream(files.Stream(path="data:f", target="data:h"), Scope.lasting(0.3))
    assert door.names() == ["f", "g", "sub"]


# --- the gate


def test_the_gate_lets_so_many_in_and_records_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.files.meter.WAIT_S", 0.05)
    meter, scope = Meter(2), Scope.lasting(60)
    with meter.operation("read", scope), meter.operation("read", scope):
        assert meter.full
        with pytest.raises(PoolExhausted), meter.operation("read", scope):
            pass
    found = meter.stats("w", ())
    assert (found.active, found.peak, found.successes, found.waiting) == (0, 2, 2, 0)


# --- disks


@contextmanager
def disk_of(place: Path, *options: str) -> Iterator[None]:
    try:
        with mounted(place, *options):
            yield
    except NotPermittedError as failure:
        pytest.skip(str(failure))


FILLING: list[Any] = [
    lambda: files.Write("data:f", bytes(2_000_000)),
    lambda: files.Write("data:f", bytes(2_000_000), durable=False),
    lambda: files.Append("data:log", bytes(2_000_000)),
    lambda: files.Copy("other:big", "data:f"),
    lambda: files.Stream(path="other:big", target="data:f"),
    lambda: files.Pack("other:noise", "data:f", "tar.zst"),
    lambda: files.Unpack("other:x.tar", "data:new"),
]


def test_a_full_disk_is_an_error_that_names_the_path_and_leaves_no_part(tmp_path: Path) -> None:
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.mkdir()
    other.mkdir()
    (other / "big").write_bytes(bytes(2_000_000))
    (other / "noise").write_bytes(os.urandom(2_000_000))
    with disk_of(disk, "-o", "size=1m"):
        (disk / "log").write_bytes(b"kept")
        roots = Roots({"data": disk, "other": other})
        door = FilesService(roots=roots)
        scope = Scope.lasting(60)
        door.pack(files.Pack("other:big", "other:x.tar", "tar"), scope)
        before = descriptors()
        for make in FILLING:
            call = make()
            with pytest.raises((DiskFull, FileFailed)) as caught:
                getattr(door, call.OPERATION.partition(".")[2])(call, scope)
            assert isinstance(caught.value, DiskFull), caught.value
            assert caught.value.path.startswith("data:")
        assert descriptors() == before + 4  # the root and its annex were opened meanwhile
        assert (disk / "log").read_bytes() == b"kept"
        assert sorted(each.name for each in disk.iterdir()) == [".gaia", "log"]
        roots.close()


def test_a_read_only_root_is_read_and_tells_of_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with disk_of(disk, "-o", "size=1m"):
        (disk / "f").write_bytes(b"body")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        roots = Roots({"data": disk})
        service, scope = FilesService(roots=roots), Scope.lasting(60)
        assert service.read(files.Read("data:f"), scope).body == b"body"
        for call in (files.Write("data:g", b""), files.Append("data:f", b"x"), files.Delete("data:f")):
            with pytest.raises(FileFailed, match="Read-only") as caught:
                getattr(service, call.OPERATION.partition(".")[2])(call, scope)  # type: ignore[attr-defined]
            assert caught.value.path == call.path  # type: ignore[attr-defined]
        assert service.health(files.Health(), scope).status == "degraded"
        roots.close()


def test_a_sparse_giant_is_refused_or_read_in_part(door: Door) -> None:
    with (door.root / "giant").open("wb") as giant:
        giant.truncate(1 << 40)
    assert door(files.ReadRange("data:giant", (1 << 40) - 5, 100)).body == bytes(5)
    assert len(door(files.Tail("data:giant")).body) == 1 << 20
    for call in (
        files.Read("data:giant"),
        files.ParseJson("data:giant"),
        files.ParseJson("data:giant", "item"),
        files.ParseJsonl("data:giant"),
        files.ParseXml("data:giant", "//a"),
        files.ParseCsv("data:giant"),
        files.Copy("data:giant", "full:copy"),
        files.Pack("data:giant", "data:x.tar"),
    ):
        with pytest.raises(GaiaError) as caught:
            door(call)
        assert str(caught.value.args[0]).partition(":")[0] in ("data", "full")
    assert door.names() == ["giant", "sub"]


# --- many machines


def test_a_root_is_told_by_its_identity_wherever_it_is(client: "redis.Redis", tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    roster = Roster(client, "redis://h")
    roster.forget("data")
    one, two = (FilesService(roots=Roots({"data": tmp_path / name})) for name in ("one", "two"))
    one.start(roster)
    one.start(roster)
    with pytest.raises(RootMismatch, match="mount it, or name it otherwise") as caught:
        two.start(roster)
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "one").rename(tmp_path / "moved")
    FilesService(roots=Roots({"data": tmp_path / "moved"})).start(roster)
    assert roster.forget("data")
    two.start(roster)
    assert [each.name for each in roster.list()] == ["data"]
    roster.forget("data")


def test_a_call_about_a_local_root_is_led_to_a_worker_that_has_it(tmp_path: Path) -> None:
    for name in ("data", "mine"):
        (tmp_path / name).mkdir()
    held = {"mine": ["a@h"], "theirs": ["b@h"], "lost": list[str]()}
    roots = Roots({"data": tmp_path / "data", "mine": tmp_path / "mine"}, local=["mine"])
    service, scope = FilesService(roots=roots, holders=lambda: held), Scope.lasting(60)
    service.write(files.Write("mine:f", b"x"), scope)
    for call in (files.Read("theirs:f"), files.Copy("data:f", "theirs:f"), files.Batch.of(files.Read("theirs:f"))):
        with pytest.raises(Elsewhere) as led:
            getattr(service, call.OPERATION.partition(".")[2])(call, scope)  # type: ignore[attr-defined]
        assert led.value.node == "b@h"
    with pytest.raises(PathDenied, match="another machine"):
        service.copy(files.Copy("mine:f", "theirs:f"), scope)
    with pytest.raises(RootUnavailable):
        service.read(files.Read("lost:f"), scope)
    with pytest.raises(PathDenied, match="there is no root"):
        service.read(files.Read("none:f"), scope)
    roots.close()


def test_a_known_root_says_whether_it_is_local(client: "redis.Redis") -> None:
    roster = Roster(client, "redis://h")
    roster.claim(KnownRoot("r", "1" * 32, local=False))
    roster.claim(KnownRoot("r", "1" * 32, local=True))
    assert until(lambda: [each for each in roster.list() if each.name == "r"])[0].local
    roster.claim(KnownRoot("unwritable", "", local=False))
    assert [each.name for each in roster.list()] == ["r"]
    assert roster.forget("r")
    assert not roster.forget("r")

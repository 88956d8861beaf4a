"""Large bodies through real workers: both ways by a shared directory, refused without one."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from gaia import Gaia, files
from gaia.codec import Artifact
from gaia.errors import ArtifactMissing, ArtifactTooLarge, BodyOverMemory, NotConfigured
from gaia.store import keys
from gaia.store.artifacts import LIMIT_BYTES
from tests.support import cluster
from tests.support.waiting import until

SIZE_BYTES = 20_000_000
READ_BYTES = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory behind the files root `data`."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that producer and worker share."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module", autouse=True)
def worker(
    redis_url: str, root: Path, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[cluster.Worker]:
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    environ = {
        "GAIA_FILES__ROOTS": json.dumps({"data": str(root)}),
        "GAIA_ARTIFACTS__URL": f"file://{directory}",
        "GAIA_ARTIFACTS__MEMORY_BYTES": "30000000",
    }
    with cluster.worker(redis_url, "files", log=log, **environ) as found:
        yield found


@pytest.fixture
def gaia(redis_url: str, directory: Path) -> Iterator[Gaia]:
    with Gaia(redis_url, artifacts_url=str(directory)) as found:
        yield found


def test_20_mb_travel_both_ways(gaia: Gaia, root: Path, directory: Path, client: "redis.Redis") -> None:
    body = os.urandom(SIZE_BYTES)
    written = gaia.submit(files.Write("data:large", body=body)).get(timeout=60)
    assert written.size_bytes == SIZE_BYTES
    assert (root / "large").read_bytes() == body
    assert gaia.submit(files.Read("data:large", max_bytes=READ_BYTES)).get(timeout=60).body == body
    assert [each.stat().st_size for each in directory.glob("?/?/*")] == [SIZE_BYTES] * 2
    assert all((client.memory_usage(each) or 0) < LIMIT_BYTES for each in client.scan_iter("*"))


def test_a_file_that_was_put_is_written(gaia: Gaia, root: Path, tmp_path: Path) -> None:
    path = tmp_path / "local"
    path.write_bytes(os.urandom(SIZE_BYTES))
    artifact = gaia.put(path)
    for name in ("one", "two"):
        assert gaia.submit(files.Write(f"data:{name}", body=artifact)).get(timeout=60).size_bytes == SIZE_BYTES
        assert (root / name).read_bytes() == path.read_bytes()


def test_a_body_that_was_changed_in_the_directory_is_refused(gaia: Gaia, root: Path, directory: Path) -> None:
    artifact = gaia.put(bytes(SIZE_BYTES))
    with (directory / artifact.id[0] / artifact.id[1] / artifact.id).open("r+b") as file:
        file.seek(SIZE_BYTES // 2)
        file.write(b"\1")
    # Writing to it changed when it expires, too: a submit sets that anew.
    os.utime(directory / artifact.id[0] / artifact.id[1] / artifact.id, (1e10, 1e10))
    with pytest.raises(ArtifactMissing, match="does not match its checksum"):
        gaia.submit(files.Write("data:changed", body=artifact)).get(timeout=60)
    assert not (root / "changed").exists()


def test_a_body_over_what_the_worker_takes_into_memory_is_refused(gaia: Gaia, root: Path) -> None:
    with pytest.raises(BodyOverMemory):
        gaia.submit(files.Write("data:huge", body=bytes(30_000_001))).get(timeout=60)
    assert not (root / "huge").exists()


@pytest.mark.parametrize("artifact_id", ["../../etc/passwd", "/etc/passwd", "0" * 32, "\u0660" * 32, "x" * 100_000])
@pytest.mark.parametrize("size_bytes", [1, SIZE_BYTES])
def test_a_forged_reference_reads_nothing(redis_url: str, root: Path, artifact_id: str, size_bytes: int) -> None:
    body = {"$artifact": {"id": artifact_id, "size_bytes": size_bytes, "sha256": "0" * 64}}
    with Celery("foreign", broker=redis_url, backend=redis_url, set_as_current=False) as foreign:
        sent = foreign.send_task("files.write", kwargs={"path": "data:forged", "body": body}, queue="files")
        with pytest.raises(ArtifactMissing):
            sent.get(timeout=20)
        foreign.close()
    assert not (root / "forged").exists()


def test_a_producer_without_the_directory_sends_no_large_body(redis_url: str, client: "redis.Redis") -> None:
    with Gaia(redis_url) as plain, pytest.raises(ArtifactTooLarge, match=r"GAIA_ARTIFACTS__URL.*`put`"):
        plain.submit(files.Write("data:x", body=bytes(SIZE_BYTES)))
    assert client.llen("files") == 0


def test_a_producer_without_the_directory_is_told_where_a_large_result_lies(redis_url: str, root: Path) -> None:
    (root / "result").write_bytes(bytes(SIZE_BYTES))
    with Gaia(redis_url) as plain, pytest.raises(NotConfigured, match="GAIA_ARTIFACTS__URL"):
        plain.submit(files.Read("data:result", max_bytes=READ_BYTES)).get(timeout=60)


def test_the_result_under_a_key_is_kept_with_its_body_for_a_day(gaia: Gaia, root: Path, client: "redis.Redis") -> None:
    (root / "keyed").write_bytes(bytes(SIZE_BYTES // 4))
    for each in client.scan_iter("gaia:artifact:*"):
        client.delete(each)
    call = gaia.submit(files.Read("data:keyed", max_bytes=READ_BYTES), idempotency_key="keyed")
    call.get(timeout=60)
    (body,) = client.scan_iter("gaia:artifact:*")
    assert client.ttl(body) >= client.ttl(keys.result(call.id)) > 80_000


def test_a_worker_without_the_directory_takes_and_gives_no_large_body(
    fresh_url: str, root: Path, directory: Path, tmp_path: Path
) -> None:
    (root / "in").write_bytes(bytes(SIZE_BYTES))
    environ = {"GAIA_FILES__ROOTS": json.dumps({"data": str(root)})}
    with (
        cluster.worker(fresh_url, "files", log=tmp_path / "log", **environ),
        Gaia(fresh_url, artifacts_url=str(directory)) as g,
    ):
        with pytest.raises(NotConfigured, match="GAIA_ARTIFACTS__URL"):
            g.submit(files.Write("data:out", body=bytes(SIZE_BYTES))).get(timeout=60)
        with pytest.raises(ArtifactTooLarge, match="GAIA_ARTIFACTS__URL"):
            g.submit(files.Read("data:in", max_bytes=READ_BYTES)).get(timeout=60)
    assert not (root / "out").exists()


def test_a_worker_that_starts_removes_what_has_expired(fresh_url: str, tmp_path: Path) -> None:
    directory = tmp_path / "artifacts"
    directory.mkdir()
    with Gaia(fresh_url, artifacts_url=str(directory)) as g:
        old, kept = g.put(bytes(LIMIT_BYTES + 1)), g.put(bytes(LIMIT_BYTES + 1))

    def path(artifact: Artifact) -> Path:
        return directory / artifact.id[0] / artifact.id[1] / artifact.id

    os.utime(path(old), (0, 0))
    with cluster.worker(fresh_url, "network", log=tmp_path / "log", GAIA_ARTIFACTS__URL=str(directory)):
        until(lambda: not path(old).exists(), what="the sweep")
    assert path(kept).exists()
    assert "removed 1 expired artifacts" in (tmp_path / "log").read_text()

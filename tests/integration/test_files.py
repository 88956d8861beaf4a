"""Files through the queue: roots of one machine, a root that is another directory, batches, streams."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaia import Gaia, files
from gaia.errors import FileMissing, InvalidResult, RootUnavailable
from tests.support import cluster
from tests.support.waiting import until


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for name in ("data", "mine", "other"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def producer(fresh_url: str) -> Iterator[Gaia]:
    with Gaia(fresh_url) as found:
        yield found


def environ(places: Path, *roots: str, local: tuple[str, ...] = ()) -> dict[str, str]:
    return {
        "GAIA_FILES__ROOTS": json.dumps({name: str(places / name) for name in roots}),
        "GAIA_FILES__LOCAL": json.dumps(local),
    }


def test_a_call_about_a_local_root_reaches_the_worker_that_has_it(producer: Gaia, fresh_url: str, places: Path) -> None:
    with cluster.worker(fresh_url, "files", log=places / "a.log", **environ(places, "data")):
        with cluster.worker(
            fresh_url, "files", log=places / "b.log", **environ(places, "data", "mine", local=("mine",))
        ):
            until(lambda: any("mine" in node.roots for node in producer.nodes()), what="the node's roots")
            sent = [producer.submit(files.Write(f"mine:{number}", b"x")) for number in range(20)]
            assert [each.get(timeout=30).size_bytes for each in sent] == [1] * 20
            found = producer.submit(files.Batch.of(files.Read("mine:3"), files.Copy("mine:3", "data:c"))).get(
                timeout=30
            )
            assert [each is not None and each.ok for each in found.outcomes()] == [True, True]
        assert len(list((places / "mine").iterdir())) == 21
        until(lambda: not any("mine" in node.roots for node in producer.nodes()), what="the node's end")
        with pytest.raises(RootUnavailable):
            producer.submit(files.Read("mine:3")).get(timeout=30)


def test_a_worker_whose_root_is_another_directory_does_not_start(fresh_url: str, places: Path) -> None:
    with cluster.worker(fresh_url, "files", log=places / "a.log", **environ(places, "data")):
        pass
    wrong = {"GAIA_FILES__ROOTS": json.dumps({"data": str(places / "other")}), "GAIA_REDIS_URL": fresh_url}
    argv = [cluster.GAIA, "worker", "files"]
    done = subprocess.run(
        argv, env={**cluster.clean_environ(), **wrong}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "mount it, or name it otherwise" in done.stderr
    assert str(places) not in done.stderr


def test_every_kind_of_operation_passes_the_queue(producer: Gaia, fresh_url: str, places: Path) -> None:
    with cluster.worker(fresh_url, "files", log=places / "a.log", **environ(places, "data")):
        written = producer.submit(files.Write("data:a.json", b'{"rows": [{"n": 1}, {"n": 2}]}')).get(timeout=30)
        assert producer.submit(files.ParseJson("data:a.json", "rows.item.n")).get(timeout=30).items == (1, 2)
        streamed = producer.submit(files.Stream(path="data:a.json")).get(timeout=30)
        assert streamed.artifact is not None
        assert streamed.sha256 == written.etag
        producer.submit(files.Stream(artifact=streamed.artifact, target="data:b.json")).get(timeout=30)
        packed = producer.submit(files.Pack("data:", "data:x.zip", "zip")).get(timeout=30)
        assert packed.entries == 2
        producer.submit(files.Unpack("data:x.zip", "data:back")).get(timeout=30)
        assert producer.submit(files.Walk("data:back")).get(timeout=30).paths == (
            "data:back/a.json",
            "data:back/b.json",
        )
        with pytest.raises(FileMissing):
            producer.submit(files.Stat("data:none")).get(timeout=30)
        assert producer.submit(files.Health()).get(timeout=30).status == "healthy"
        assert producer.submit(files.Stats()).get(timeout=30).errors == 1
        deep = b"[" * 900 + b"]" * 900
        producer.submit(files.Write("data:deep", deep)).get(timeout=30)
        with pytest.raises(InvalidResult, match="nested"):
            producer.submit(files.ParseJson("data:deep")).get(timeout=30)

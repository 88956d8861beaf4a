"""Producers that have nothing of the workers: the client's wheel, or Celery alone."""

import json
import os
import subprocess
import textwrap
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.support import cluster, environment

FORBIDDEN = ("requests", "urllib3", "psutil", "pydantic", "playwright", "config", "tasks")


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the client's wheel in it."""
    return environment.producer(tmp_path_factory.mktemp("producer"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory behind the files root `data`."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module", autouse=True)
def files_worker(redis_url: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with cluster.worker(redis_url, "files", log=log, GAIA_FILES__ROOTS=json.dumps({"data": str(root)})):
        yield


def run(interpreter: Path, redis_url: str, script: str, tmp_path: Path) -> Any:
    """Run a producer, away from the checkout; give what it prints as JSON."""
    path = tmp_path / "producer.py"
    path.write_text(textwrap.dedent(script))
    environ = {"GAIA_REDIS_URL": redis_url, "PATH": os.defpath}
    argv = [str(interpreter), "-I", "-W", "error", str(path)]
    ended = subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    return json.loads(ended.stdout)


def test_a_producer_with_the_client_alone_gets_typed_results(
    interpreter: Path, redis_url: str, root: Path, tmp_path: Path
) -> None:
    found = run(
        interpreter,
        redis_url,
        """
        import json
        from gaia import Gaia, files

        with Gaia() as g:
            written = g.submit(files.Write(path="data:of/producer", body=b"a\\0b")).get(timeout=20)
            content = g.submit(files.Read(path="data:of/producer")).get(timeout=20)
        assert isinstance(written, files.Written)
        assert isinstance(content, files.Content)
        print(json.dumps([written.size_bytes, content.body.hex(), content.etag == written.etag]))
        """,
        tmp_path,
    )
    assert found == [3, "610062", True]
    assert (root / "of" / "producer").read_bytes() == b"a\0b"


def test_a_large_body_comes_back_to_a_producer_with_the_client_alone(
    interpreter: Path, redis_url: str, tmp_path: Path
) -> None:
    found = run(
        interpreter,
        redis_url,
        """
        from gaia import Gaia, files

        with Gaia() as g:
            g.submit(files.Write(path="data:large", body=bytes(300_000))).get(timeout=20)
            print(len(g.submit(files.Read(path="data:large")).get(timeout=20).body))
        """,
        tmp_path,
    )
    assert found == 300_000


def test_the_client_imports_nothing_of_the_workers(interpreter: Path, redis_url: str, tmp_path: Path) -> None:
    loaded = run(
        interpreter,
        redis_url,
        """
        import json, sys
        from gaia import Gaia, Pending, api, browser, errors, files, network, process

        with Gaia() as g:
            g.submit(files.Write(path="data:loaded", body=b"")).get(timeout=20)
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
        """,
        tmp_path,
    )
    assert "gaia" in loaded
    assert not set(FORBIDDEN) & set(loaded)


def test_an_error_of_the_worker_keeps_its_class_and_fields(interpreter: Path, redis_url: str, tmp_path: Path) -> None:
    found = run(
        interpreter,
        redis_url,
        """
        import json
        from gaia import Gaia, errors, files
        from gaia.contracts.base import Call, contract

        @contract
        class Newer(Call[files.Content], operation="files.read"):
            path: str
            lines: int = 0

        def error_of(call):
            try:
                g.submit(call).get(timeout=20)
            except errors.GaiaError as error:
                return [type(error).__name__, isinstance(error, errors.Permanent), *error.args]

        with Gaia() as g:
            print(json.dumps([error_of(Newer("data:a", lines=3)), error_of(files.Read(path="data:none"))]))
        """,
        tmp_path,
    )
    refused, missing = found
    assert refused[:4] == ["InvalidCall", True, "files.read", "lines"]
    assert missing[:3] == ["FileMissing", True, "data:none"]


def test_a_call_out_of_bounds_is_refused_before_it_is_queued(interpreter: Path, redis_url: str, tmp_path: Path) -> None:
    found = run(
        interpreter,
        redis_url,
        """
        import json
        from gaia import errors, files

        try:
            files.Read(path="/etc/passwd")
        except errors.InvalidCall as error:
            print(json.dumps([error.operation, error.field]))
        """,
        tmp_path,
    )
    assert found == ["files.read", "path"]


@pytest.fixture
def plain(redis_url: str) -> Iterator[Celery]:
    """A Celery app that knows nothing of Gaia."""
    app = Celery("plain", broker=redis_url, backend=redis_url, set_as_current=False)
    yield app
    app.backend.result_consumer.stop()
    app.backend.client.close()
    app.close()


def test_a_producer_that_knows_the_name_and_the_json_needs_no_client(plain: Celery, root: Path) -> None:
    fields = {"path": "data:plain", "body": b64encode(b"from afar").decode()}
    result = plain.send_task("files.write", kwargs=fields, queue="files").get(timeout=20)
    assert result["size_bytes"] == 9
    assert (root / "plain").read_bytes() == b"from afar"


def test_a_plain_producer_sees_the_name_and_the_fields_of_an_error(plain: Celery) -> None:
    pending = plain.send_task("files.read", kwargs={"pat": "data:plain"}, queue="files")
    error = pending.get(timeout=20, propagate=False)
    assert type(error).__name__ == "InvalidCall"
    assert error.args[:2] == ("files.read", "pat")

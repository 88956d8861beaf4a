"""Fixtures that every test may use."""

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

from gaia import Gaia
from tests.support import cluster
from tests.support.web import Site

# Hypothesis without a clock or a memory of its own: a slow machine and an earlier run change nothing.
settings.register_profile(
    "gaia",
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=25,  # of each of ninety contracts
)
settings.load_profile("gaia")

# A module's database must outlive what its tests take for themselves.
_of_modules = itertools.cycle(range(8))
_of_tests = itertools.cycle(range(8, 16))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server, shared by the tests of one pytest process."""
    with cluster.valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="module")
def redis_url(valkey: str) -> str:
    """An empty database of that server, for one test module."""
    return _empty_database(valkey, next(_of_modules))


@pytest.fixture
def fresh_url(valkey: str) -> str:
    """An empty database of that server, for one test."""
    return _empty_database(valkey, next(_of_tests))


def _empty_database(server: str, number: int) -> str:
    url = f"{server.rpartition('/')[0]}/{number}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    """A plain client of the module's database."""
    with redis.Redis.from_url(redis_url) as found:
        yield found


@pytest.fixture
def gaia(redis_url: str) -> Iterator[Gaia]:
    """A producer."""
    with Gaia(redis_url) as found:
        yield found


@pytest.fixture(scope="module")
def probe_worker(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Worker]:
    """A worker of the test operations."""
    log = tmp_path_factory.mktemp("probe") / "worker.log"
    with cluster.probe_worker(redis_url, log=log) as found:
        yield found


@pytest.fixture
def marks(tmp_path: Path) -> tuple[str, str]:
    """The files by which `probe.hold` says that it started, and is told to end."""
    return str(tmp_path / "started"), str(tmp_path / "release")


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on loopback that says what the test tells it to."""
    with Site() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Site]:
    """A second one."""
    with Site() as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one file with a key and a certificate for the name localhost, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, signed, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(key), "-out", str(signed)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not installed: no certificate, so nothing about TLS was tested")
    both.write_bytes(key.read_bytes() + signed.read_bytes())
    return both

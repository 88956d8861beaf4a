"""A service, and sites that it may reach."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from config.settings import Api
from tasks.api.service import ApiService
from tasks.egress.gateway import Gateway
from tasks.egress.judge import Judge
from tasks.egress.resolver import Resolver
from tests.support.web import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Site]:
    with Site() as server:
        yield server


@pytest.fixture
def make_service() -> Iterator["Maker"]:
    with ExitStack() as stack:
        yield Maker(stack)


class Maker:
    """Makes services that reach the given sites and nothing else."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, *sites: Site, settings: Api | None = None) -> ApiService:
        judge = Judge([f"127.0.0.1/32:{each.port}" for each in sites])
        service = ApiService(settings=settings or Api(), gateway=Gateway(judge, Resolver(hosts=Path("/dev/null"))))
        self._stack.callback(service.close)
        return service


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

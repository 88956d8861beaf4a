"""Both engines behind one service, and sites that they may reach."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.requests import Maker


@pytest.fixture(params=["single", "bulk"])
def make_service(request: pytest.FixtureRequest) -> Iterator[Maker]:
    with ExitStack() as stack:
        yield Maker(stack, bulk=request.param == "bulk")


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

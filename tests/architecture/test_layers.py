"""What a fresh interpreter holds after an import: the client stays light, services know no Celery."""

import subprocess
import sys

import pytest

from gaia import wire
from tests.support.cluster import ROOT, clean_environ


def loaded_by(statement: str) -> set[str]:
    """Give the packages that a fresh interpreter holds after a statement."""
    script = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    argv = [sys.executable, "-c", script]
    said = subprocess.run(argv, cwd=ROOT, env=clean_environ(), capture_output=True, text=True, check=True).stdout
    return set(said.split())


@pytest.mark.parametrize("queue", wire.QUEUES)
def test_contracts_load_neither_celery_nor_redis(queue: str) -> None:
    assert not loaded_by(f"from gaia import {queue}, errors") & {"celery", "kombu", "redis", "tasks", "config"}


def test_the_whole_client_loads_nothing_of_the_workers() -> None:
    loaded = loaded_by("from gaia import *")
    assert not loaded & {"requests", "urllib3", "psutil", "pydantic", "playwright", "tasks", "config"}


@pytest.mark.parametrize("queue", wire.QUEUES)
def test_a_service_runs_without_celery(queue: str) -> None:
    assert not loaded_by(f"import tasks.{queue}.service") & {"celery", "kombu"}


def test_the_app_of_a_worker_loads_what_no_one_service_needs() -> None:
    """Whatever its queue, it holds no libraries of the others: a fifth of its memory and its start."""
    loaded = loaded_by("import tasks.app")
    assert "celery" in loaded
    assert not loaded & {"requests", "urllib3", "pycurl", "dns", "lxml", "ijson", "zstandard"}

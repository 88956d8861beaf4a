"""Services that may run a few programs, and the proof that none of them is left."""

import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from config import programs
from tasks.process.service import ProcessService
from tasks.roots.roots import Roots
from tasks.runtime.identity import Identity
from tests.unit.process.modes import MODES, Mode, identify, require

MakeService = Callable[..., ProcessService]
PROGRAMS = (sys.executable, "/bin/sh", "/bin/cat", "/bin/sleep", "/usr/bin/env", "/usr/bin/yes", "/bin/pwd")
PROFILE = {"memory_bytes", "output_bytes", "cpu_percent", "cpu_s", "processes", "open_files", "file_bytes"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "root"
    (found / "sub").mkdir(parents=True)
    return found


@pytest.fixture
def roots(root: Path) -> Iterator[Roots]:
    found = Roots({"data": root})
    yield found
    found.close()


@pytest.fixture
def make_service(roots: Roots) -> Iterator[MakeService]:
    """Make services; at the end their descriptors are closed and this process has no child more than before."""
    fds = _descriptors()
    children = psutil.Process().children(recursive=True)
    made: list[ProcessService] = []

    def make(*, parts: dict[str, Any] | None = None, **options: Any) -> ProcessService:
        limits = {"cpu_percent": None} | {name: options.pop(name) for name in PROFILE & options.keys()}
        values = {"executables": PROGRAMS, "grace_s": 0.5, "profiles": {"default": limits}} | options
        identity = Identity("tests@here")
        given = {"own": lambda: identity} | (parts or {})
        made.append(ProcessService(settings=programs.Process.model_validate(values), roots=roots, **given))
        return made[-1]

    yield make
    for each in made:
        each.close()
    roots.close()
    assert psutil.Process().children(recursive=True) == children
    assert _descriptors() <= fds  # fewer, if other tests' garbage was collected meanwhile


def _descriptors() -> int:
    return psutil.Process().num_fds()


@pytest.fixture
def service(make_service: MakeService) -> ProcessService:
    return make_service()


@pytest.fixture
def bearers(marker: str) -> Callable[[], list[psutil.Process]]:
    """Give what finds the living processes with the marker in their arguments."""
    return lambda: _bearers(marker)


@pytest.fixture
def marker() -> Iterator[str]:
    """A number of seconds for `sleep` that no other process has; at the end no process has it any more."""
    found = f"1000.{secrets.randbelow(10**12):012}"
    yield found
    assert _bearers(found) == []


def _bearers(marker: str) -> list[psutil.Process]:
    return [
        each
        for each in psutil.process_iter(["cmdline", "status"])
        if each.info["status"] != psutil.STATUS_ZOMBIE and marker in " ".join(each.info["cmdline"] or ())
    ]


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Give what waits for a condition, ten seconds at most."""

    def wait(condition: Callable[[], object]) -> None:
        pause = threading.Event()
        for _ in range(1000):
            if condition():
                return
            pause.wait(0.01)
        pytest.fail("the condition never held")

    return wait


@pytest.fixture(params=MODES, ids=identify)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    require(found)
    return found

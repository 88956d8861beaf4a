"""Real programs, and waiting for what they do."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import until


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start Python code, output into files beneath `tmp_path`; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> "subprocess.Popen[str]":
        with (tmp_path / "out").open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments], stdout=out, stderr=out, text=True, cwd=tmp_path
            )
        started.append(process)
        return process

    yield start
    for each in started:
        below = psutil.Process(each.pid).children(recursive=True) if each.poll() is None else []
        each.kill()
        each.wait()
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        until(lambda below=below: not any(_alive(process.pid) for process in below))


@pytest.fixture
def said(tmp_path: Path) -> Callable[[], str]:
    """Give what the program of `run` has written so far."""
    return (tmp_path / "out").read_text


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Say whether a process runs; a zombie does not."""
    return _alive


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def umask_open() -> Iterator[None]:
    """Let files be made as open as they ask to be."""
    old = os.umask(0)
    yield
    os.umask(old)

"""Whether the process behind a heartbeat has ended."""

import os
import subprocess
import sys
import time

import pytest

from gaia.store.nodes import Node
from tasks.runtime.process import REUSED_S, has_ended, machine
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not machine(), reason="this machine does not name itself")


def node(pid: int, *, started_at: float | None = None, where: str | None = None) -> Node:
    began = time.time() if started_at is None else started_at
    return Node("a@h", "b", pid, "h", (), 1, "1", began, machine=machine() if where is None else where)


def test_a_process_that_runs_has_not_ended() -> None:
    assert not has_ended(node(os.getppid()))


def test_a_process_that_ended_has_reaped_or_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not has_ended(node(process.pid))
        process.kill()
        until(lambda: has_ended(node(process.pid)), what="the zombie")
    assert has_ended(node(process.pid))


def test_an_earlier_boot_of_this_process_has_ended() -> None:
    assert has_ended(node(os.getpid()))


def test_another_process_under_the_same_pid_is_not_the_worker() -> None:
    assert has_ended(node(os.getppid(), started_at=time.time() - 365 * 86_400 - REUSED_S))


@pytest.mark.parametrize("where", ["", "another machine"])
def test_a_pid_of_elsewhere_tells_nothing(where: str) -> None:
    assert not has_ended(node(2**22 + 1, where=where))

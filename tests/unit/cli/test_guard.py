"""The guard in a process of its own: what survives whom."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.support.waiting import until

Run = Callable[..., Any]
Said = Callable[[], str]

GUARDED = """
import os, signal, subprocess, sys
from tasks.cli.guard import stand_guard

stand_guard()
signal.signal(signal.SIGTERM, lambda *_: (print("term", flush=True), sys.exit(4)))
signal.signal(signal.SIGINT, lambda *_: print("int", flush=True))
subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
print("up", flush=True)
while True:
    signal.pause()
"""


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def start(run: Run, said: Said) -> tuple[Any, list[psutil.Process]]:
    process = run(GUARDED)
    until(lambda: "up" in said())
    found = until(lambda: [each for each in below(process.pid) if each.name() == "sleep"] and below(process.pid))
    return process, found


def test_signals_reach_the_supervisor_once_and_its_exit_code_comes_back(run: Run, said: Said) -> None:
    process, found = start(run, said)
    process.send_signal(signal.SIGINT)
    until(lambda: said().count("int") == 1)
    process.terminate()
    assert process.wait(30) == 4
    assert said().split() == ["up", "int", "term"]
    assert not any(each.is_running() for each in found)


def test_a_killed_guard_has_the_supervisor_stop_in_order(run: Run, said: Said, alive: Callable[[int], bool]) -> None:
    process, (supervisor, _) = start(run, said)
    process.kill()
    process.wait()
    until(lambda: "term" in said())
    until(lambda: not alive(supervisor.pid))


def test_a_killed_supervisor_has_the_guard_sweep(run: Run, said: Said) -> None:
    process, found = start(run, said)
    found[0].kill()
    assert process.wait(30) == 128 + signal.SIGKILL
    assert "gaia: the supervisor was ended by SIGKILL" in said()
    assert not any(each.is_running() for each in found)


def test_an_exit_code_of_a_failure_comes_back(run: Run, tmp_path: Path) -> None:
    process = run("import sys; from tasks.cli.guard import stand_guard; stand_guard(); sys.exit('no')")
    assert process.wait(30) == 1

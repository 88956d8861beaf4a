import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.cli import tether
from tests.support.waiting import until

TIED = [sys.executable, "-I", "-S", tether.__file__]

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([*sys.argv[1:5], str(os.getpid()), "/bin/sleep", "300"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_a_tied_program_dies_with_its_starter(
    run: Callable[..., Any], said: Callable[[], str], alive: Callable[[int], bool]
) -> None:
    parent = run(PARENT, *TIED)
    pid = int(until(said))
    until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    parent.kill()
    parent.wait()
    until(lambda: not alive(pid))


def test_a_program_whose_starter_has_gone_is_not_started(tmp_path: Path) -> None:
    left = tmp_path / "left"
    nobody = str(2**22 + 1)
    assert subprocess.run([*TIED, nobody, "/bin/touch", str(left)], check=False).returncode == 1
    assert not left.exists()


def test_the_program_takes_the_place_of_the_tether() -> None:
    argv = [*TIED, str(os.getpid()), "/bin/sh", "-c", "echo $$; exit 7"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate()
    assert (int(out), process.returncode) == (process.pid, 7)


def test_a_missing_program_is_named() -> None:
    argv = [*TIED, str(os.getpid()), "/no/such/program"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        127,
        "/no/such/program could not be started: No such file or directory\n",
    )


def test_signals_keep_their_default_effect() -> None:
    process = subprocess.Popen([*TIED, str(os.getpid()), "/bin/sleep", "300"])
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM

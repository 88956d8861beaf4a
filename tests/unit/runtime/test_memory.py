"""The memory bound, and the re-execution in place."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import SettingsError
from tasks.runtime.memory import APART_S, RENEWED_AT, MemoryBound, resident_bytes

ROOT = Path(__file__).parents[3]

SCRIPT = """
import json, os, sys, threading
from tasks.cli import notify
from tasks.runtime.memory import reexecute

notify.ready()
if "--again" not in os.environ:
    os.environ["--again"] = "1"
    os.dup2(1, 50)
    os.set_inheritable(os.pipe()[0], True)
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    print(os.getpid())
    reexecute()
print(json.dumps({
    "pid": os.getpid(), "argv": sys.argv, "flags": [sys.flags.safe_path, sys.flags.dont_write_bytecode],
    "open": sorted(int(each) for each in os.listdir("/dev/fd")), "prefix": sys.prefix, "directory": os.getcwd(),
    "threads": len(threading.enumerate()), "variable": os.environ["GAIA_TEST"],
}))
"""


def test_a_process_becomes_itself_again(tmp_path: Path) -> None:
    script, address = tmp_path / "script.py", str(tmp_path / "notify")
    script.write_text(SCRIPT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)
        supervisor.settimeout(5)
        done = subprocess.run(
            [sys.executable, "-P", "-B", str(script), "an argument", ""],
            env={**os.environ, "GAIA_TEST": "kept", "NOTIFY_SOCKET": address, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert supervisor.recv(100) == b"READY=1"
        supervisor.setblocking(False)
        with pytest.raises(BlockingIOError):
            supervisor.recv(100)
    first, second = done.stdout.splitlines()
    found = json.loads(second)
    assert found["pid"] == int(first)
    assert found["argv"] == [str(script), "an argument", ""]
    assert found["flags"] == [True, 1]
    assert [each for each in found["open"] if each > 3] == []  # the listing itself is 3
    assert (found["prefix"], found["directory"], found["variable"]) == (sys.prefix, str(tmp_path), "kept")
    assert found["threads"] == 1


ENDING = """
import os, signal, sys
from tasks.runtime.memory import MemoryBound, reexecute_if_due

bound = MemoryBound(None, 2, 0, used_bytes=lambda: 1)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: None)
reexecute_if_due(bound)
os.kill(os.getpid(), signal.SIGHUP)
print("not renewed", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("not ended")
"""


def test_a_signal_between_the_worker_and_its_renewal_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "not renewed\n")


def test_the_time_of_a_renewal_is_told_once_and_to_no_child() -> None:
    code = "import os; from tasks.runtime.memory import *; bound = MemoryBound(None, 2, 0, used_bytes=lambda: 1)"
    code += "; print(bound._not_before, RENEWED_AT in os.environ)"
    environ = {**os.environ, RENEWED_AT: "5.0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{5.0 + APART_S} False\n"


def test_a_bound_below_what_an_idle_worker_has_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="GAIA_WORKER__MEMORY_BYTES: 1000 is less than the 1001"):
        MemoryBound(None, 1000, 0, used_bytes=lambda: 1001)
    MemoryBound(None, 1000, 0, used_bytes=lambda: 999)


def test_the_resident_set_is_that_of_this_process() -> None:
    assert 10_000_000 < resident_bytes() < 10_000_000_000

"""The supervisor in a process of its own, over real programs."""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.waiting import until

Run = Callable[..., Any]
Said = Callable[[], str]

DRIVER = """
import json, os, sys
from tasks.cli.output import Output
from tasks.cli.program import Program
from tasks.cli.supervisor import StartFailed, Supervisor

stages, bound_s = json.loads(sys.argv[1])
try:
    with Supervisor(Output(width=5)) as cluster:
        for stage in stages:
            cluster.start(*[Program(env=dict(os.environ), **each) for each in stage])
            cluster.wait_ready(bound_s)
        print("ready", flush=True)
        cluster.run()
except StartFailed as failure:
    sys.exit(f"failed: {failure.message}")
print("stopped", flush=True)
"""

WAIT = "import signal; signal.pause()"

LOG_ON_TERM = """
import signal, sys
def end(*_):
    open("log", "a").write(sys.argv[1] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("waits", flush=True)
signal.pause()
"""

STUBBORN = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
print("waits", flush=True)
while True:
    signal.pause()
"""

DAEMON = """
import os, signal, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("daemon", "w").write(str(os.getpid()))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    os._exit(0)
os.wait()
signal.pause()
"""


def program(name: str, code: str, *arguments: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "argv": [sys.executable, "-c", code, *arguments], **options}


@pytest.fixture
def supervise(run: Run) -> Callable[..., Any]:
    """Run stages of programs under a supervisor."""

    def start(*stages: list[dict[str, Any]], bound_s: float = 30) -> Any:
        return run(DRIVER, json.dumps([stages, bound_s]))

    return start


def test_lines_carry_the_name_of_their_program(supervise: Run, said: Said) -> None:
    supervise([program("one", f"print('hello'); {WAIT}"), program("three", f"print('there', flush=True); {WAIT}")])
    until(lambda: "three | there" in said())


def test_standard_error_and_a_last_line_without_end_are_shown(supervise: Run, said: Said) -> None:
    supervise([program("one", "import os; os.write(2, b'oh'); os.write(1, b' no')")])
    until(lambda: "one   | oh no\n" in said())


def test_an_end_that_comes_first_stops_everything_and_is_told(supervise: Run, said: Said) -> None:
    process = supervise([program("good", WAIT), program("bad", "raise SystemExit(3)", notifies=True)])
    assert process.wait(30) == 1
    assert "failed: bad ended with exit code 3" in said()
    assert "starts again" not in said()


def test_a_program_that_cannot_be_started_is_told(supervise: Run, said: Said) -> None:
    process = supervise([{"name": "bad", "argv": ["/no/such/program"], "notifies": True}])
    assert process.wait(30) == 1
    assert "bad   | /no/such/program could not be started: No such file or directory" in said()


def test_a_program_that_is_never_ready_is_named(supervise: Run, said: Said) -> None:
    process = supervise([program("ready", WAIT), program("never", WAIT, notifies=True)], bound_s=0.3)
    assert process.wait(30) == 1
    assert "failed: never was not ready within 0.3 s" in said()


def test_a_program_is_ready_when_it_says_so(supervise: Run, said: Said) -> None:
    code = f"from tasks.cli import notify; import os; input; open('pid','w').write(str(os.getpid())); {WAIT}"
    process = supervise([program("one", code.replace("input;", "notify.ready();"), notifies=True)])
    until(lambda: "ready" in said().splitlines())
    process.terminate()
    assert process.wait(30) == 0


def test_nobody_else_can_say_that_a_program_is_ready(supervise: Run, said: Said, tmp_path: Path) -> None:
    code = f"import os; open('address','w').write(os.environ['NOTIFY_SOCKET']); {WAIT}"
    process = supervise([program("one", code, notifies=True)], bound_s=2)
    address = until(lambda: (tmp_path / "address").exists() and (tmp_path / "address").read_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for message in (b"READY=1", b"", b"\xff" * 2000):
            sender.sendto(message, "\0" + address[1:])
    assert process.wait(30) == 1
    assert "failed: one was not ready" in said()


def test_what_crashes_is_started_again(supervise: Run, said: Said, tmp_path: Path) -> None:
    code = f"""
import os, pathlib
here = pathlib.Path("here")
print("life", flush=True)
if here.exists():
    {WAIT}
here.touch()
input_ = open("go"); input_.read()
os.kill(os.getpid(), 11)
"""
    os.mkfifo(tmp_path / "go")
    supervise([program("one", code)])
    until(lambda: "ready" in said().splitlines())
    (tmp_path / "go").write_text("now")
    until(lambda: said().count("one   | life") == 2)
    assert "one   | ended with SIGSEGV; its lines above" not in said()
    assert "one   | ended with SIGSEGV; it starts again in 0.5 s" in said()


def test_stages_stop_in_the_opposite_order(supervise: Run, said: Said, tmp_path: Path) -> None:
    stages = [[program(name, LOG_ON_TERM, name)] for name in ("first", "second", "third")]
    process = supervise(*stages)
    until(lambda: said().count("waits") == 3)
    process.terminate()
    assert process.wait(30) == 0
    assert (tmp_path / "log").read_text().split() == ["third", "second", "first"]
    assert said().endswith("stopped\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_stopping_signal_stops(supervise: Run, said: Said, signum: signal.Signals) -> None:
    process = supervise([program("one", LOG_ON_TERM, "one")])
    until(lambda: "waits" in said())
    process.send_signal(signum)
    assert process.wait(30) == 0


def test_what_ignores_sigterm_is_killed_after_its_grace(supervise: Run, said: Said) -> None:
    process = supervise([program("one", STUBBORN, grace_s=0.3)])
    until(lambda: "waits" in said())
    process.terminate()
    assert process.wait(30) == 0
    assert "one   | no\n" in said()
    assert "did not stop in time: killed" in said()


def test_a_second_signal_kills_at_once(supervise: Run, said: Said) -> None:
    process = supervise([program("one", STUBBORN, grace_s=3600)])
    until(lambda: "waits" in said())
    process.send_signal(signal.SIGINT)
    until(lambda: "one   | no\n" in said())
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert "one   | killed\n" in said()


def test_a_program_has_a_session_of_its_own(supervise: Run, said: Said) -> None:
    supervise([program("one", f"import os; print(os.getsid(0) == os.getpid(), flush=True); {WAIT}")])
    until(lambda: "one   | True" in said())


def test_a_daemon_does_not_outlive_the_stop(
    supervise: Run, tmp_path: Path, alive: Callable[[int], bool], said: Said
) -> None:
    process = supervise([program("one", DAEMON)])
    pid = int(until(lambda: (tmp_path / "daemon").exists() and (tmp_path / "daemon").read_text()))
    until(lambda: "ready" in said().splitlines())
    process.terminate()
    assert process.wait(30) == 0
    assert not alive(pid)


def test_programs_die_with_a_killed_supervisor(supervise: Run, said: Said, alive: Callable[[int], bool]) -> None:
    process = supervise([program("one", STUBBORN), program("two", STUBBORN)])
    until(lambda: said().count("waits") == 2)
    pids = [each.pid for each in psutil.Process(process.pid).children()]
    assert len(pids) == 2
    process.kill()
    process.wait()
    until(lambda: not any(map(alive, pids)))


def test_a_descendant_that_keeps_the_pipe_delays_nothing(supervise: Run, said: Said, tmp_path: Path) -> None:
    code = """
import os, signal
if os.fork() == 0:
    while True:
        os.write(1, b"x" * 100)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = supervise([program("one", code, notifies=True)])
    assert process.wait(30) == 1
    assert "failed: one ended with SIGKILL" in said()


def test_output_that_nobody_reads_any_longer_ends_nothing(supervise: Run, said: Said, tmp_path: Path, run: Run) -> None:
    import subprocess

    stages = json.dumps([[[program("one", "import signal\nwhile True: print('x' * 1000)")]], 30])
    process = subprocess.Popen([sys.executable, "-c", DRIVER, stages], stdout=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.read(5000)
    process.stdout.close()
    (child,) = psutil.Process(process.pid).children()
    before = child.cpu_times().user
    until(lambda: child.cpu_times().user > before + 0.05)
    process.terminate()
    process.wait(30)
    assert not child.is_running()

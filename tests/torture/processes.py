"""Programs that do what they can to stay, run in every way of holding limits that this machine's kernel permits.

Each is bounded by limits of its own, and the storms by a control group around this process, so that a failure costs the
machine little. Whoever survives is found by a number in its arguments that no other process has.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from config import programs
from gaia.contracts import process
from tasks.process.service import ProcessService
from tasks.roots.roots import Roots
from tasks.runtime.identity import Identity
from tasks.scope import Scope
from tests.support.cluster import ROOT
from tests.support.waiting import until
from tests.unit.process.modes import Mode

LIMITS: Final = process.Limits(memory_bytes=48 << 20, processes=24, output_bytes=100_000)
FENCE: Final = 120
"""Threads and processes at once, this process and those between it and the programs included."""
DEATH_S: Final = 5.0
"""What is left of a killed worker's programs has to be gone by then."""

WORKER: Final = """
import sys, threading
from config import programs
from gaia.contracts import process
from tasks.process.service import ProcessService
from tasks.roots.roots import Roots
from tasks.runtime.identity import Identity
from tasks.scope import Scope
enforcement, namespace, script = sys.argv[1:]
identity = Identity("killed@here")
given = programs.Process(executables=("/bin/sh",), enforcement=enforcement, pid_namespace=namespace == "True")
service = ProcessService(settings=given, roots=Roots({}), own=lambda: identity)
scope = Scope.lasting(600)
service.start(process.Start(("/bin/sh", "-c", script)), scope)
threading.Thread(target=service.run, args=(process.Run(("/bin/sh", "-c", script)), scope)).start()
"""
WORKERS_PROGRAM: Final = "trap '' TERM; (setsid sh -c 'trap \"\" TERM HUP; sleep {marker}' &); sleep {marker}; true"
"""Three processes, one of them a daemon that ignores SIGTERM; the worker above has it twice."""

_DAEMON: Final = """
import os, sys
from time import sleep
if os.fork(): {end}
os.setsid()
if os.fork(): os._exit(0)
os.chdir("/")
for fd in range(3): os.close(fd)
sleep(1000) # {marker}
"""
_STORM: Final = """
import os, select
while True: # {marker}
    try: {fork}
    except OSError: select.select([], [], [], 0.01)
"""
_DEAF: Final = (
    "trap '' TERM; "
    "(setsid sh -c \"trap '' TERM HUP INT; setsid sleep {marker} & while :; do sleep {marker}; done\" &); "
    "sleep {marker}"
)
_STOPPED: Final = "trap '' TERM; sh -c 'trap \"\" TERM; kill -STOP $$; sleep {marker}' & kill -STOP $$; sleep {marker}"
_HOG: Final = "import time\nkept = []\nwhile True: # {marker}\n    kept.append(b'x' * (4 << 20)); time.sleep(0.01)"
_HIDDEN_HOG: Final = (
    f"{sys.executable} -c 'import time; b = bytes([1]) * (100 << 20); time.sleep(60)'; exec sleep {{marker}}"
)
_CHAIN: Final = "import os, time\nwhile True: # {marker}\n    time.sleep(0.002)\n    if os.fork(): os._exit(0)"
_BURN: Final = "(while :; do : {marker}; done) & (while :; do : {marker}; done) & wait"


@dataclass(frozen=True)
class Case:
    """A program, and what its end is to be put down to; `{marker}` stands where the number goes."""

    name: str
    text: str
    reasons: frozenset[str]
    python: bool = False
    timeout_s: float = 20.0
    limits: process.Limits = LIMITS
    storm: bool = False

    def call(self, marker: str) -> process.Run:
        argv = (sys.executable, "-S", "-c") if self.python else ("/bin/sh", "-c")
        text = self.text.replace("{marker}", marker)
        return process.Run((*argv, text), limits=self.limits, timeout_s=self.timeout_s)


def _case(name: str, text: str, *reasons: str, **options: object) -> Case:
    return Case(name, text, frozenset(reasons), **options)  # type: ignore[arg-type]  # fields of Case


CASES: Final = (
    _case("daemonise", _DAEMON.replace("{end}", "sleep(0.3); sys.exit(7)"), "exited", python=True),
    _case("double fork, and stay", _DAEMON.replace("{end}", "sleep(60)"), "timeout", python=True, timeout_s=0.5),
    _case("ignore SIGTERM in new sessions", _DEAF, "timeout", timeout_s=0.5),
    _case("stop oneself and a child", _STOPPED, "timeout", timeout_s=0.5),
    _case("close the output, live on", "exec 0<&- >&- 2>&-; exec sleep {marker}", "timeout", timeout_s=0.5),
    _case("leave children behind", "sleep {marker} & setsid sleep {marker} & exit 0", "exited"),
    _case(
        "fork storm",
        _STORM.replace("{fork}", "os.fork()"),
        "timeout",
        "processes",
        python=True,
        timeout_s=1.0,
        storm=True,
    ),
    _case(
        "fork storm of new sessions",
        _STORM.replace("{fork}", "os.fork() or os.setsid()"),
        *("timeout", "processes"),
        python=True,
        timeout_s=1.0,
        storm=True,
    ),
    _case("chain of forks", _CHAIN, "exited", python=True, timeout_s=0.5, storm=True),
    _case("memory hog", _HOG, "memory", python=True),
    _case("memory hog below", _HIDDEN_HOG, "memory"),
    _case("output flood", "trap '' TERM; exec yes {marker}", "output"),
    _case("output without a line end", "cat /dev/zero; : {marker}", "output"),
    _case("1 GiB of output", "head -c 1073741824 /dev/zero; : {marker}", "output"),
    _case("burn CPU seconds", _BURN, "cpu", limits=process.Limits(cpu_s=0.3)),
)


def expected(case: Case, mode: Mode) -> frozenset[str]:
    """Give the reasons that are right: only where limits are sampled does the number of processes end a program.

    Between two looks of a busy machine a storm may have passed the bound of memory, too.
    """
    if case.name.startswith("fork storm"):
        return frozenset({"processes", "memory"} if mode.enforcement == "sampled" else {"timeout"})
    return case.reasons


@dataclass(frozen=True)
class Outcome:
    """How a program ended, how long that took, and how many processes of it were left the moment it was told."""

    mode: str
    case: str
    reason: str
    right: bool
    survivors: int
    took_s: float

    @property
    def sound(self) -> bool:
        return self.right and not self.survivors


@contextmanager
def service_of(mode: Mode) -> Iterator[ProcessService]:
    """Give a service whose programs are held that way."""
    identity = Identity("torture@here")
    given = programs.Process.model_validate(
        {"executables": (sys.executable, "/bin/sh"), "grace_s": 0.3, "profiles": {"default": {"cpu_percent": None}}}
        | mode.options
    )
    found = ProcessService(settings=given, roots=Roots({}), own=lambda: identity)
    try:
        yield found
    finally:
        found.close()


def run(service: ProcessService, mode: Mode, case: Case, name: str) -> Outcome:
    """Run a program to the end that it is to come to; a storm within a `fence` around the service, too."""
    marker = new_marker()
    began = time.monotonic()
    found = service.run(case.call(marker), Scope.lasting(60))
    took_s = time.monotonic() - began
    left = bearers(marker)
    for each in left:
        each.kill()
    right = found.reason in expected(case, mode) and found.enforcement == mode.enforcement
    return Outcome(name, case.name, found.reason, right, len(left), took_s)


def kill_worker(mode: Mode, name: str) -> Outcome:
    """Kill a worker with two programs of three processes each; tell how long the last of them lived."""
    marker = new_marker()
    with worker(mode, marker) as found:
        found.kill()
        found.wait()
        began = time.monotonic()
        try:
            until(lambda: bearers(marker) == [], DEATH_S)
        except AssertionError:
            left = bearers(marker)
            for each in left:
                each.kill()
            return Outcome(name, "kill -9 of the worker", "-", right=False, survivors=len(left), took_s=DEATH_S)
        took_s = time.monotonic() - began
    return Outcome(name, "kill -9 of the worker", "-", right=True, survivors=0, took_s=took_s)


@contextmanager
def worker(mode: Mode, marker: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Give a process whose programs, two, are running."""
    script = WORKERS_PROGRAM.format(marker=marker)
    found = subprocess.Popen(
        [sys.executable, "-c", WORKER, mode.enforcement, str(mode.pid_namespace), script], cwd=ROOT
    )
    try:
        until(lambda: len([each for each in bearers(marker) if each.pid != found.pid]) >= 8)
        yield found
    finally:
        found.kill()
        found.wait()


def new_marker() -> str:
    """Give a number of seconds for `sleep` that no other process has."""
    return f"1000.{secrets.randbelow(10**12):012}"


def bearers(marker: str) -> list[psutil.Process]:
    """Give the living processes with the marker in their arguments."""
    return [
        each
        for each in psutil.process_iter(["cmdline", "status"])
        if each.info["status"] != psutil.STATUS_ZOMBIE and marker in " ".join(each.info["cmdline"] or ())
    ]


class NoFence(Exception):  # noqa: N818 - a state
    """No control group can be had that bounds what a storm could become."""


@contextmanager
def fence() -> Iterator[None]:
    """Bound the number of processes below this one, should a storm's own limits fail.

    Raises:
        NoFence
    """
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.split(":")[2] for line in lines if ":pids:" in line), None)
    outside = Path("/sys/fs/cgroup/pids") / (own or "").strip().lstrip("/")
    inside = outside / f"fence-of-tests-{os.getpid()}"
    try:
        inside.mkdir()
    except OSError:
        raise NoFence from None
    (inside / "pids.max").write_text(str(FENCE))
    (inside / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (outside / "cgroup.procs").write_text(str(os.getpid()))
        until(lambda: _emptied(inside))


def _emptied(directory: Path) -> bool:
    """Remove a group, killing what is in it; say whether it is gone."""
    for pid in (directory / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


def every(mode: Mode, name: str, told: Callable[[Outcome], None]) -> int:
    """Run the whole set in one mode; give how many ended otherwise than they should."""
    unsound = 0
    for case in CASES:
        # The launcher has to be born within the fence, so a storm has a service of its own.
        with fence() if case.storm else nullcontext(), service_of(mode) as service:
            outcome = run(service, mode, case, name)
        told(outcome)
        unsound += not outcome.sound
    outcome = kill_worker(mode, name)
    told(outcome)
    return unsound + (not outcome.sound)

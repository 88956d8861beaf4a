"""Programs that do what they can to stay, in every way of holding limits that this kernel permits: none is left.

Each is bounded by limits of its own, so that a failure here costs the machine little.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gaia.contracts import process
from tasks.process.service import ProcessService
from tests.support.waiting import until
from tests.unit.process.modes import MODES, Mode, identify, require
from tests.unit.process.running import Bearers, MakeService, WaitUntil, python, shell

LIMITS = process.Limits(memory_bytes=48 << 20, processes=24, output_bytes=100_000)
FENCE = 120
"""Threads and processes at once, this process and those between it and the programs included."""

DAEMON = """
import os, sys
from time import sleep
if os.fork(): {end}
os.setsid()
if os.fork(): os._exit(0)
os.chdir("/")
for fd in range(3): os.close(fd)
sleep(1000) # {marker}
"""


@pytest.fixture(params=MODES, ids=identify)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    require(found)
    return found


@pytest.fixture
def fence(mode: Mode) -> Iterator[None]:
    """Bound what a storm could become, should its own limits fail, by a control group around this process."""
    own = next(line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":pids:" in line)
    outside = Path("/sys/fs/cgroup/pids") / own.strip().lstrip("/")
    inside = outside / f"fence-of-tests-{os.getpid()}"
    try:
        inside.mkdir()
    except OSError:
        pytest.skip(f"NOT RUN: {identify(mode)}: a storm can be fenced in by no control group here")
    (inside / "pids.max").write_text(str(FENCE))
    (inside / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (outside / "cgroup.procs").write_text(str(os.getpid()))
        until(lambda: _removed(inside))


def _removed(directory: Path) -> bool:
    """Say whether the group is empty, and gone."""
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


@pytest.fixture
def service(make_service: MakeService, mode: Mode) -> ProcessService:
    return make_service(grace_s=0.3, **mode.options)


def test_the_reply_says_what_held(service: ProcessService, mode: Mode) -> None:
    assert shell(service, "true").enforcement == mode.enforcement


def test_a_daemon_ends_with_its_program(service: ProcessService, marker: str) -> None:
    code = DAEMON.format(marker=marker, end="sleep(0.3); sys.exit(7)")
    found = python(service, code, limits=LIMITS)
    assert (found.reason, found.exit_code) == ("exited", 7)


def test_a_daemon_ends_with_the_time_of_its_program(service: ProcessService, marker: str) -> None:
    found = python(service, DAEMON.format(marker=marker, end="sleep(60)"), limits=LIMITS, timeout_s=0.5)
    assert (found.reason, found.signal) == ("timeout", signal.SIGTERM)


def test_who_ignores_sigterm_in_a_session_of_its_own_is_killed(service: ProcessService, marker: str) -> None:
    inner = f"trap '' TERM HUP INT; setsid sleep {marker} & while :; do sleep {marker}; done"
    found = shell(service, f"trap '' TERM; (setsid sh -c \"{inner}\" &) ; sleep {marker}", limits=LIMITS, timeout_s=0.5)
    assert (found.reason, found.signal) == ("timeout", signal.SIGKILL)


def test_a_fork_storm_stays_within_its_number_and_is_killed(
    fence: None, service: ProcessService, marker: str, mode: Mode, bearers: Bearers
) -> None:
    code = f"""
import os, select
while True: # {marker}
    try: os.fork()
    except OSError: select.select([], [], [], 0.01)
"""
    found = python(service, code, limits=LIMITS, timeout_s=1.0)
    assert found.reason == ("processes" if mode.enforcement == "sampled" else "timeout")
    assert bearers() == []


def test_a_fork_storm_of_many_sessions_is_killed(
    fence: None, service: ProcessService, mode: Mode, marker: str, bearers: Bearers
) -> None:
    code = f"""
import os, select
while True: # {marker}
    try: os.fork() or os.setsid()
    except OSError: select.select([], [], [], 0.01)
"""
    assert python(service, code, limits=LIMITS, timeout_s=1.0).reason in {"processes", "timeout"}
    assert bearers() == []


def test_a_chain_of_forks_whose_parents_leave_is_killed(fence: None, service: ProcessService, marker: str) -> None:
    code = f"import os, time\nwhile True: # {marker}\n    time.sleep(0.002)\n    if os.fork(): os._exit(0)"
    found = python(service, code, limits=LIMITS, timeout_s=0.5)
    assert found.reason == "exited"


def test_a_memory_hog_is_killed_for_it(service: ProcessService, marker: str) -> None:
    code = f"import time\nkept = []\nwhile True: # {marker}\n    kept.append(b'x' * (4 << 20)); time.sleep(0.01)"
    found = python(service, code, limits=LIMITS, timeout_s=20)
    assert (found.reason, found.signal) == ("memory", signal.SIGKILL)
    assert found.peak_memory_bytes > 40 << 20


def test_a_hog_below_a_program_that_would_go_on_ends_both(service: ProcessService, marker: str) -> None:
    hog = "import time; b = b'x' * (100 << 20); time.sleep(60)"
    found = shell(service, f'{sys.executable} -c "{hog}"; exec sleep {marker}', limits=LIMITS, timeout_s=20)
    assert found.reason == "memory"


def test_an_output_flood_is_cut_and_ended(service: ProcessService) -> None:
    found = shell(service, "trap '' TERM; exec yes", limits=LIMITS)
    assert (found.reason, len(found.stdout), found.truncated) == ("output", 100_000, True)


def test_output_without_a_line_end_is_binary_and_cut(service: ProcessService) -> None:
    found = shell(service, "exec cat /dev/zero", limits=LIMITS)
    assert (found.reason, found.stdout) == ("output", bytes(100_000))


def test_a_stopped_child_of_a_stopped_program_is_killed(service: ProcessService, marker: str) -> None:
    script = f"trap '' TERM; sh -c 'trap \"\" TERM; kill -STOP $$; sleep {marker}' & kill -STOP $$; sleep {marker}"
    found = shell(service, script, limits=LIMITS, timeout_s=0.5)
    assert (found.reason, found.signal) == ("timeout", signal.SIGKILL)


def test_who_closes_its_output_and_lives_on_is_stopped_in_time(service: ProcessService, marker: str) -> None:
    found = shell(service, f"exec 0<&- >&- 2>&-; exec sleep {marker}", limits=LIMITS, timeout_s=0.5)
    assert (found.reason, found.signal) == ("timeout", signal.SIGTERM)


def test_cpu_seconds_count_over_the_tree(service: ProcessService, marker: str) -> None:
    burn = f"while :; do : {marker}; done"
    found = shell(service, f"({burn}) & ({burn}) & wait", limits=process.Limits(cpu_s=0.3), timeout_s=20)
    assert found.reason == "cpu"
    assert found.cpu_s >= 0.3


def test_a_share_of_cpu_is_held(service: ProcessService) -> None:
    code = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    found = python(service, code, limits=process.Limits(cpu_percent=20))
    assert found.reason == "exited"
    assert float(found.stdout) < 0.3 * 1.5 + 0.15


def test_a_program_cannot_kill_what_watches_it(
    service: ProcessService, mode: Mode, marker: str, bearers: Bearers, wait_until: WaitUntil
) -> None:
    found = shell(service, f"sleep {marker} & sleep 0.2; kill -9 $PPID; sleep 0.2; exit 4", limits=LIMITS)
    if mode.pid_namespace:
        assert (found.reason, found.exit_code) == ("exited", 4)
    else:
        # Without a namespace it can; then it ends with its keeper.
        assert (found.reason, found.signal) == ("signal", signal.SIGKILL)
        wait_until(lambda: bearers() == [])


def test_a_program_cannot_stop_what_watches_it(
    service: ProcessService, mode: Mode, marker: str, bearers: Bearers, wait_until: WaitUntil
) -> None:
    found = shell(service, f"sleep {marker} & sleep 0.2; kill -STOP $PPID; sleep 0.2; exit 4", limits=LIMITS)
    if mode.pid_namespace:
        assert (found.reason, found.exit_code) == ("exited", 4)
    else:
        assert (found.reason, found.signal) == ("signal", signal.SIGKILL)
        wait_until(lambda: bearers() == [])


def test_the_keeper_itself_is_all_that_stays(service: ProcessService, marker: str) -> None:
    before = set(psutil.Process().children(recursive=True))
    shell(service, f"sleep {marker} & sleep {marker} & exit", limits=LIMITS)
    names = {each.name() for each in set(psutil.Process().children(recursive=True)) - before}
    assert names
    assert all(name.startswith("python") for name in names)

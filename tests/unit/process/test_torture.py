"""What programs can do to what watches them, and what each way of holding limits says of itself.

The set of those that do what they can to stay is in `tests.torture.processes`.
"""

import signal

import psutil
import pytest

from gaia.contracts import process
from tasks.process.service import ProcessService
from tests.unit.process.modes import Mode
from tests.unit.process.running import Bearers, MakeService, WaitUntil, python, shell

LIMITS = process.Limits(memory_bytes=48 << 20, processes=24, output_bytes=100_000)


@pytest.fixture
def service(make_service: MakeService, mode: Mode) -> ProcessService:
    return make_service(grace_s=0.3, **mode.options)


def test_the_reply_says_what_held(service: ProcessService, mode: Mode) -> None:
    assert shell(service, "true").enforcement == mode.enforcement


def test_output_without_a_line_end_is_binary_and_cut(service: ProcessService) -> None:
    found = shell(service, "exec cat /dev/zero", limits=LIMITS)
    assert (found.reason, found.stdout) == ("output", bytes(100_000))


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

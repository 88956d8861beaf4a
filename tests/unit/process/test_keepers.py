"""Workers, launchers and keepers that are killed: nothing of a program outlives its worker by five seconds."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from gaia.contracts import process
from tasks.process import keepers
from tasks.process.keepers import PREFIX, Keepers, sweep_directories
from tasks.process.launcher import groups
from tasks.process.service import ProcessService
from tasks.scope import Scope
from tests.support.cluster import ROOT
from tests.support.waiting import until
from tests.torture import processes
from tests.unit.process.modes import Mode
from tests.unit.process.running import Bearers, MakeService, shell


@pytest.fixture
def worker(mode: Mode, marker: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with two programs of three processes each, one of them a daemon that ignores SIGTERM."""
    with processes.worker(mode, marker) as found:
        yield found


def test_a_killed_worker_leaves_no_process_no_group_and_no_directory(
    worker: "subprocess.Popen[bytes]", bearers: Bearers
) -> None:
    launcher = psutil.Process(worker.pid).children()[0]
    site = groups.name_of(worker.pid, launcher.pid)
    worker.kill()
    worker.wait()
    until(lambda: bearers() == [], 5, what="the end of every program")
    until(lambda: not launcher.is_running(), 10)
    assert list(Path("/sys/fs/cgroup").glob(f"*/**/{site}")) == []


def test_a_worker_and_a_launcher_killed_at_once_leave_no_process(
    worker: "subprocess.Popen[bytes]", bearers: Bearers, mode: Mode
) -> None:
    launcher = psutil.Process(worker.pid).children()[0]
    launcher.kill()
    worker.kill()
    worker.wait()
    until(lambda: bearers() == [], 5, what="the end of every program")
    until(lambda: not launcher.is_running(), 10)
    # What is left without anybody to remove it, the next worker removes.
    sweep_directories()
    until(lambda: groups.sweep(None) == 0)
    assert list(Path("/sys/fs/cgroup").glob(f"*/**/gaia-{worker.pid}-*")) == []


def test_a_launcher_that_was_killed_is_replaced_and_its_programs_go_on(
    make_service: MakeService, marker: str, mode: Mode
) -> None:
    service = make_service(**mode.options)
    started = service.start(process.Start(("/bin/sleep", marker)), Scope.lasting(20))
    launchers = [each for each in psutil.Process().children() if "launcher.main" in " ".join(each.cmdline())]
    launchers[0].kill()
    launchers[0].wait(10)
    assert shell(service, "echo on").stdout == b"on\n"
    assert service.status(process.Status(started.id), Scope.lasting(5)).running
    service.kill(process.Kill(started.id), Scope.lasting(20))


def test_keepers_are_used_again_for_programs_of_the_same_shape(service: ProcessService) -> None:
    for _ in range(5):
        assert shell(service, "true").exit_code == 0
    made = service.stats(process.Stats(), Scope.lasting(20)).keepers_made
    assert made <= 10
    shell(service, "true", limits=process.Limits(open_files=100))
    assert shell(service, "ulimit -n").stdout == b"1024\n"


def test_a_mode_that_cannot_be_had_is_refused_by_name(make_service: MakeService, tmp_path: Path) -> None:
    service = make_service(enforcement="cgroup2", cgroup=str(tmp_path / "none"))
    report = service.health(process.Health(), Scope.lasting(20))
    assert report.status == "unhealthy"
    assert "GAIA_PROCESS__ENFORCEMENT" in report.findings[0]


def test_directories_of_workers_that_have_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = Path(tempfile.mkdtemp(prefix=PREFIX))
    (gone / "lock").touch()
    (gone / "run-x").mkdir()
    pool = Keepers(enforcement="sampled", cgroup=None, pid_namespace=False)
    try:
        kept = pool.directory()
        assert sweep_directories() == 0
        assert kept.is_dir()
        assert not gone.exists()
    finally:
        pool.close()
    assert not kept.exists()


def test_a_directory_that_went_with_its_launcher_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pool = Keepers(enforcement="sampled", cgroup=None, pid_namespace=False)
    try:
        first = pool.directory()
        pool._end_launcher()
        assert not first.exists()
        assert pool.directory().is_dir()
        assert sweep_directories() == 0
    finally:
        pool.close()


def test_a_worker_that_sweeps_spares_a_directory_that_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    flock, swept = fcntl.flock, []

    def sweep_before(file: int, operation: int) -> None:
        if not swept:
            swept.append(True)
            sweep_directories()
        flock(file, operation)

    pool = Keepers(enforcement="sampled", cgroup=None, pid_namespace=False)
    monkeypatch.setattr(fcntl, "flock", sweep_before)
    try:
        assert pool.directory().is_dir()
        assert swept
    finally:
        pool.close()


def test_what_others_put_in_a_shared_directory_is_neither_opened_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "lock").touch()
    planted = tmp_path / f"{PREFIX}planted"
    planted.mkdir()
    (planted / "lock").symlink_to(tmp_path / "kept" / "lock")
    fifo = tmp_path / f"{PREFIX}fifo"
    fifo.mkdir()
    os.mkfifo(fifo / "lock")
    assert sweep_directories() <= 1
    assert planted.is_dir()
    if os.geteuid() == 0:
        others = tmp_path / f"{PREFIX}others"
        others.mkdir()
        (others / "lock").touch()
        os.chown(others, 1, 1)
        assert sweep_directories() == 0
        assert others.is_dir()


def test_keepers_of_a_crowd_are_let_go_when_it_has_gone(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: shell(service, "sleep 0.2"), range(16)))
    assert service.stats(process.Stats(), Scope.lasting(20)).keepers_idle > 2 * keepers.SPARE
    monkeypatch.setattr(keepers, "RESTED_S", -1.0)
    shell(service, "true")
    assert service.stats(process.Stats(), Scope.lasting(20)).keepers_idle <= 2 * keepers.SPARE


def test_a_launcher_that_was_stopped_goes_on(make_service: MakeService) -> None:
    service = make_service(pid_namespace=False)
    shell(service, "true")
    launchers = [each for each in psutil.Process().children() if "launcher.main" in " ".join(each.cmdline())]
    launchers[0].suspend()
    for number in range(keepers.SPARE + 1):  # each of another shape, so that a keeper has to be made
        assert shell(service, "echo on", limits=process.Limits(open_files=100 + number)).stdout == b"on\n"
    assert launchers[0].status() != psutil.STATUS_STOPPED


def test_a_launcher_knows_only_the_standard_library() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tasks.process.launcher import main; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    argv = [sys.executable, "-I", "-S", "-c", script, str(ROOT)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert set(said.split()) <= {"tasks", "__main__"}


def test_no_signal_to_a_launcher_ends_it(make_service: MakeService) -> None:
    service = make_service()
    shell(service, "true")
    launchers = [each for each in psutil.Process().children() if "launcher.main" in " ".join(each.cmdline())]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(launchers[0].pid, number)
    assert shell(service, "true").exit_code == 0
    assert launchers[0].is_running()

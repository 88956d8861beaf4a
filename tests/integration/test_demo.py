"""`gaia demo`, as somebody meets it first."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import cluster
from tests.support.waiting import until

DEMO = [sys.executable, "-P", "-m", "tasks.cli.main", "demo"]
OPERATIONS = {
    "api.request": 40,
    "files.write": 20,
    "files.read": 20,
    "process.run": 10,
    "network.resolve": 10,
    "browser.capture": 4,
}


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo keeps what it removes afterwards; its browser, another user under root, must come through."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o711)
        monkeypatch.setenv("TMPDIR", made)
        yield Path(made)


def test_the_demo_shows_real_work_of_every_subsystem(tmp_path: Path, scratch: Path) -> None:
    # Settings of the user's own cluster are not the demo's.
    environ = {**cluster.clean_environ(), "GAIA_REDIS_URL": "redis://127.0.0.1:1/0", "GAIA_FLOWER__PORT": "1"}
    done = subprocess.run(DEMO, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    for operation, count in OPERATIONS.items():
        (row,) = [line for line in done.stdout.splitlines() if operation in line]
        assert [int(each) for each in row.split() if each.isdigit()][:2] == [count, count]
    pictures = sorted((tmp_path / ".gaia" / "demo").glob("*.png"))
    assert len(pictures) == 4
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert str(picture.relative_to(tmp_path)) in done.stdout
    assert list(scratch.iterdir()) == []


def test_a_demo_that_is_stopped_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    demo = subprocess.Popen(DEMO, cwd=tmp_path, env=cluster.clean_environ(), stdout=subprocess.DEVNULL)
    try:
        found = until(lambda: demo.poll() is not None or (len(children(demo.pid)) >= 8 and children(demo.pid)), 60)
        assert demo.poll() is None
    finally:
        code = cluster.stop(demo, 90)
    assert code == 128 + signal.SIGTERM
    assert not [each for each in found if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert list(scratch.iterdir()) == []


def test_a_demo_whose_cluster_cannot_start_says_why_in_a_line(tmp_path: Path, scratch: Path) -> None:
    # A directory in which nothing can be made: the cluster's own, which lies beneath it.
    (tmp_path / ".gaia").mkdir(mode=0o700)
    (tmp_path / ".gaia" / "demo").write_text("in the way")
    done = subprocess.run(
        DEMO, cwd=tmp_path, env=cluster.clean_environ(), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("gaia: ")
    assert done.stderr.count("\n") == 1
    assert list(scratch.iterdir()) == []


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)

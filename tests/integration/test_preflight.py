"""What a worker does about settings that its machine has not the things for: it refuses, or says what is missing."""

import json
from pathlib import Path

from tests.support import cluster
from tests.support.cluster import GAIA, endpoint, executed, get
from tests.support.waiting import until

NO_PROGRAM = '["/usr/bin/no-such-program"]'


def test_a_worker_whose_programs_are_not_there_refuses_in_one_sentence(fresh_url: str, tmp_path: Path) -> None:
    argv = [GAIA, "worker", "process"]
    found = executed(argv, {"GAIA_REDIS_URL": fresh_url, "GAIA_PROCESS__EXECUTABLES": NO_PROGRAM}, tmp_path / "log")
    assert found.process.wait(60) == 1
    told = "gaia: GAIA_PROCESS__EXECUTABLES names '/usr/bin/no-such-program', which is no program on this machine\n"
    assert found.text() == told


def test_a_worker_whose_libraries_are_broken_does_not_start(fresh_url: str, tmp_path: Path) -> None:
    """Else it would take calls from those that are whole, and fail them faster than they succeed."""
    (tmp_path / "pycurl.py").write_text("raise ImportError('libcurl is of another version')")
    argv = [GAIA, "worker", "api"]
    found = executed(argv, {"GAIA_REDIS_URL": fresh_url, "PYTHONPATH": str(tmp_path)}, tmp_path / "log")
    assert found.process.wait(60) == 1
    assert "ImportError: libcurl is of another version" in found.text()
    assert found.text().endswith("gaia: the worker cannot be set up: ImportError, see its log\n")
    assert " ready." not in found.text()


def test_what_may_come_later_is_warned_of_once_and_told_by_health(fresh_url: str, tmp_path: Path) -> None:
    """Of other queues' settings a worker says nothing: the program that is not there stops it not."""
    missing, shared = tmp_path / "root", tmp_path / "bodies"
    environ = {
        "GAIA_FILES__ROOTS": json.dumps({"data": str(missing)}),
        "GAIA_ARTIFACTS__URL": str(shared),
        "GAIA_PROCESS__EXECUTABLES": NO_PROGRAM,
        "GAIA_BROWSER__CHROMIUM": "/no/such/chromium",
    }
    with cluster.worker(fresh_url, "files", log=tmp_path / "log", **environ) as worker:
        where = endpoint(fresh_url)
        assert get(f"{where}/readiness")[0] == 200
        found = json.loads(get(f"{where}/health")[1])
        assert found["status"] == "unhealthy"
        assert any("root 'data': " in each and "No such file or directory" in each for each in found["reasons"])
        assert any(str(shared) in each for each in found["reasons"])
        warned = [line for line in worker.text().splitlines() if " WARNING " in line and "sweeper" not in line]
        assert ["root 'data'" in each for each in warned].count(True) == 1
        assert [str(shared) in each for each in warned].count(True) == 1
        assert len(warned) == 2
        missing.mkdir()
        shared.mkdir()
        until(
            lambda: json.loads(get(f"{where}/health")[1])["status"] == "healthy",
            30,
            what="health, now that all is there",
        )

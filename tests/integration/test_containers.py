"""What the containers run, run without them: Redis as configured, health checks, Flower, Chromium, the wheels."""

import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gaia import Gaia
from tasks.browser import chromium
from tasks.cli.server import HOST, find_binary, free_port
from tests.support import compose, environment
from tests.support.cluster import GAIA, ROOT, Worker, clean_environ, probe_worker, stop
from tests.support.probe import Hold
from tests.support.waiting import until

PASSWORD = compose.VARIABLES["CLUSTER_REDIS_PASSWORD"]
HEALTH = ROOT / "docker" / "healthcheck.py"


# --- Redis


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The pid and port of a server started by the command of the service."""
    service = compose.services()["redis"]
    port = free_port(HOST)
    (script,) = service["command"]
    script = compose.interpolate(script).replace("dir /data", f"dir {tmp_path}\nbind {HOST}\nport {port}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(find_binary().path)
    environ = compose.environment("redis") | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen([*service["entrypoint"], script], env=environ, stdout=subprocess.DEVNULL)
    try:
        yield process.pid, port
    finally:
        stop(process)


def ping(port: int, password: str | None) -> bool:
    try:
        with redis.Redis(HOST, port, password=password, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.ping())
    except redis.ConnectionError:  # a refused password is one, too
        return False


def test_redis_keeps_what_it_takes_and_asks_for_its_password(configured: tuple[int, int]) -> None:
    pid, port = configured
    until(lambda: ping(port, PASSWORD), what="the server's answer")
    assert not ping(port, None)
    assert PASSWORD not in Path(f"/proc/{pid}/cmdline").read_text()
    with redis.Redis(HOST, port, password=PASSWORD, decode_responses=True) as client:
        options = client.config_get("append*", "maxmemory*", "save")
    assert options["appendonly"] == "yes"
    assert options["appendfsync"] == "everysec"
    assert options["maxmemory-policy"] == "noeviction"
    assert int(options["maxmemory"]) == 768 * 1024 * 1024


# --- health


def healthy(url: str | None, limit_s: float = 15) -> str | None:
    """Run the workers' health check; give what it says if it fails."""
    environ = {} if url is None else {"GAIA_REDIS_URL": url}
    argv = [sys.executable, "-I", "-S", str(HEALTH), str(limit_s)]
    ended = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode in (0, 1)
    assert bool(ended.stderr) == bool(ended.returncode)
    return ended.stderr or None


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[Worker]:
    with probe_worker(redis_url, log=tmp_path / "worker.log") as found:
        yield found


def test_a_worker_that_waits_for_messages_is_healthy(worker: Worker, redis_url: str) -> None:
    assert worker.process.poll() is None
    until(lambda: healthy(redis_url) is None, what="health")


def test_a_worker_with_all_its_slots_taken_is_healthy(
    worker: Worker, redis_url: str, gaia: Gaia, tmp_path: Path
) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    pendings = [gaia.submit(Hold(str(started), str(release))) for _ in range(5)]
    until(lambda: started.exists() and len(started.read_text()) == 4, what="four running calls")
    assert healthy(redis_url) is None
    release.touch()
    assert [each.get(timeout=20).text for each in pendings] == ["released"] * 5
    assert worker.process.poll() is None


def test_a_worker_that_starts_before_a_backlog_is_healthy(redis_url: str, gaia: Gaia, tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    pendings = [gaia.submit(Hold(str(started), str(release))) for _ in range(20)]
    with probe_worker(redis_url, log=tmp_path / "worker.log"):
        until(lambda: started.exists() and len(started.read_text()) == 4, what="four running calls")
        until(lambda: healthy(redis_url) is None, what="health")
        release.touch()
        assert [each.get(timeout=20).text for each in pendings] == ["released"] * 20


def test_a_worker_that_hangs_is_found_out(worker: Worker, redis_url: str) -> None:
    until(lambda: healthy(redis_url, 5) is None, what="health")
    worker.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: "sign of life" in (healthy(redis_url, 5) or ""), 30, what="the finding")
    finally:
        worker.process.send_signal(signal.SIGCONT)


def test_no_worker_is_found_out(redis_url: str) -> None:
    assert "fetches messages" in (healthy(redis_url) or "")


@pytest.mark.parametrize("url", [None, "redis://:s3cr3t-w0rd@127.0.0.1:1/0", "redis://[::1", "redis://:s3cr3t/w0rd@h/"])
def test_a_health_check_that_cannot_ask_says_why_in_one_line_without_the_password(url: str | None) -> None:
    said = healthy(url) or ""
    assert said.count("\n") == 1
    assert "s3cr3t" not in said


def test_a_wrong_password_is_one_line(redis_url: str) -> None:
    wrong = f"redis://:s3cr3t-w0rd@{redis_url.rpartition('@')[2]}"
    said = healthy(wrong) or ""
    assert "WRONGPASS" in said
    assert "s3cr3t" not in said


# --- Flower


def test_flower_is_healthy_and_shows_nothing_without_its_password(redis_url: str, tmp_path: Path) -> None:
    port = free_port(HOST)
    service = compose.services()["flower"]
    own = {"GAIA_REDIS_URL": redis_url, "GAIA_FLOWER__PORT": str(port), "HOME": str(tmp_path)}
    argv = [GAIA, *service["command"]]
    check = [sys.executable, *service["healthcheck"]["test"][2:-1], service["healthcheck"]["test"][-1]]
    check[-1] = check[-1].replace("5555", str(port))
    with (tmp_path / "flower.log").open("wb") as log:
        environ = clean_environ() | compose.environment("flower") | own
        process = subprocess.Popen(argv, cwd=tmp_path, env=environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(
            lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0, 30, what="Flower's health"
        )
        for page in ("/", "/workers", "/tasks", "/api/workers"):
            with pytest.raises(HTTPError) as refused:
                urlopen(f"http://{HOST}:{port}{page}", timeout=10)
            assert refused.value.code == 401
            refused.value.close()
    finally:
        stop(process)


# --- Chromium


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A directory that another user may write to; those above `tmp_path` let nobody pass."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as found:
        Path(found).chmod(0o777)
        yield Path(found)


def test_chromium_keeps_its_sandbox_beneath_the_seccomp_profile(anyones: Path) -> None:
    """It refuses to start when it can have none."""
    profile = ROOT / "docker" / "chromium-seccomp.json"
    options = ["--headless", "--disable-gpu", f"--user-data-dir={anyones}", "--dump-dom", "data:text/html,<p>hello"]
    argv = [sys.executable, "-m", "tests.support.seccomp", str(profile), str(chromium.find(None)), *options]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "<p>hello</p>" in ended.stdout, ended.stderr


@pytest.mark.parametrize("option", ["--mount", "--uts", "--ipc", "--cgroup", "--user --map-root-user --mount"])
def test_no_other_namespace_can_be_made_beneath_the_seccomp_profile(option: str) -> None:
    profile = ROOT / "docker" / "chromium-seccomp.json"
    argv = [sys.executable, "-m", "tests.support.seccomp", str(profile), "unshare", "--user", *option.split(), "true"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Operation not permitted" in ended.stderr


# --- the installation


@pytest.mark.parametrize(("project", "packages"), [(ROOT, ("tasks", "config")), (ROOT / "client", ("gaia",))])
def test_a_wheel_holds_every_file_of_its_packages(project: Path, packages: tuple[str, ...], tmp_path: Path) -> None:
    with zipfile.ZipFile(environment.wheel(project, tmp_path)) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = (path for package in packages for path in (project / package).rglob("*"))
    wanted = {str(path.relative_to(project)) for path in files if path.is_file() and "__pycache__" not in path.parts}
    assert held == wanted

"""`gaia up`, `gaia env` and Flower's pages, with real workers."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
import redis

from gaia import Gaia, files, network, process, wire
from gaia.errors import Transient
from tasks.cli import producer
from tasks.cli.server import free_port
from tests.support import cluster
from tests.support.cluster import get
from tests.support.waiting import until
from tests.support.web import Site, reply

GAIA = [sys.executable, "-P", "-m", "tasks.cli.main"]

READY_BOUND_S = 90

README = (cluster.ROOT / "README.md").read_text()


class Up:
    """A running `gaia up`."""

    def __init__(self, directory: Path, *options: str, **environ: str) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.state = directory / "state"
        self._log = directory / "log"
        with self._log.open("w") as out:
            self.process = subprocess.Popen(
                [*GAIA, "up", "--state-dir", str(self.state), *options],
                env={**cluster.clean_environ(), **environ},
                stdout=out,
                stderr=out,
            )

    def said(self) -> str:
        return self._log.read_text()

    def wait_ready(self) -> "Up":
        until(lambda: self.process.poll() is not None or "Gaia is up" in self.said(), READY_BOUND_S, what="the banner")
        assert self.process.poll() is None, self.said()
        return self

    def env(self) -> "subprocess.CompletedProcess[str]":
        command = [*GAIA, "env", "--state-dir", str(self.state)]
        return subprocess.run(command, env=cluster.clean_environ(), capture_output=True, text=True, check=False)

    def url(self) -> str:
        """The address as a shell takes it from `gaia env`."""
        script = 'eval "$1" && printf %s "$GAIA_REDIS_URL"'
        return subprocess.run(
            ["/bin/sh", "-c", script, "sh", self.env().stdout], capture_output=True, text=True, check=True
        ).stdout

    def flower(self) -> str:
        found = re.search(r"Flower +(http://\S+)/", self.said())
        assert found
        return found[1]

    def monitor(self) -> str:
        found = re.search(r"Metrics +(http://\S+)/metrics", self.said())
        assert found
        return found[1]

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def command_lines(self) -> list[tuple[psutil.Process, list[str]]]:
        """Every process below and its command line; one that ends meanwhile has none any more."""
        found = []
        for each in self.below():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append((each, each.cmdline()))
        return found

    def program(self, ending: str) -> psutil.Process | None:
        """The process whose command line ends so."""
        return next((each for each, line in self.command_lines() if " ".join(line).rstrip().endswith(ending)), None)


def running(found: list[psutil.Process]) -> list[psutil.Process]:
    left = []
    for each in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                left.append(each)
    return left


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start clusters; whatever still runs at the end is stopped."""
    started: list[Up] = []

    def begin(*options: str, **environ: str) -> Up:
        started.append(Up(tmp_path, *options, **environ))
        return started[-1]

    yield begin
    for each in started:
        cluster.stop(each.process, 60)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The one web site that the cluster may reach."""
    with Site(routes={"/": reply(b"<p>hello", 200, "Content-Type: text/html")}) as found:
        yield found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Up]:
    """A whole cluster, shared by the tests that leave it as it is."""
    (allowed,) = re.findall(r"^GAIA_PROCESS__EXECUTABLES='(.*)' make up ", README, re.MULTILINE)
    opened = {
        "GAIA_PROCESS__EXECUTABLES": json.dumps([*json.loads(allowed), "/bin/uname"]),
        "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"]),
    }
    made = Up(tmp_path_factory.mktemp("up"), "--flower-port", "0", "--monitor-port", "0", **opened)
    try:
        yield made.wait_ready()
    finally:
        assert cluster.stop(made.process, 60) == 0


def workers(page: str) -> list[str]:
    """The node names that Flower shows."""
    return [each["hostname"] for each in json.loads(get(f"{page}/workers?json=1")[1])["data"]]


# --- a cluster that runs


def test_env_is_a_shell_line_that_leads_a_producer_to_the_workers(up: Up) -> None:
    redis_line, artifacts_line, monitor_line = up.env().stdout.splitlines()
    assert re.fullmatch(r"export GAIA_REDIS_URL='redis://:[0-9a-f]{64}@127\.0\.0\.1:\d+/0'", redis_line)
    assert artifacts_line == f"export GAIA_ARTIFACTS__URL='{up.state / 'artifacts'}'"
    assert monitor_line == f"export GAIA_MONITOR__PORT='{up.monitor().rpartition(':')[2]}'"
    with Gaia(up.url()) as g:
        g.submit(files.Write("data:a/b.txt", b"hello")).get(timeout=30)
        assert g.submit(files.Read("data:a/b.txt")).get(timeout=30).body == b"hello"
        assert "127.0.0.1" in g.submit(network.Resolve("localhost")).get(timeout=30).addresses
        assert g.submit(process.Run(("/bin/uname",))).get(timeout=30).exit_code == 0
    assert (up.state / "files" / "a" / "b.txt").read_bytes() == b"hello"


def test_it_is_up_when_the_monitor_finds_it_ready(start: Start) -> None:
    one = start("--queues", "network", "--no-flower", "--monitor-port", "0").wait_ready()
    assert get(f"{one.monitor()}/readiness") == (200, '{\n  "status": "ready",\n  "reasons": []\n}\n')
    assert "Not ready" not in one.said()
    assert f"Dashboard {one.monitor()}/dashboard" in one.said()


def test_what_the_monitor_misses_of_queues_that_were_left_out_is_told_and_not_waited_for(
    start: Start, fresh_url: str
) -> None:
    with Gaia(fresh_url) as g:
        g.submit(files.Read("data:a"))
    options = ("--queues", "network", "--no-flower", "--monitor-port", "0")
    one = start(*options, GAIA_REDIS_URL=fresh_url).wait_ready()
    assert "Not ready files: no worker consumes\n" in one.said()


def test_a_result_store_of_its_own_is_told_to_producers(
    start: Start, redis_url: str, fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start("--queues", "network", "--no-flower", "--no-monitor", GAIA_RESULT_URL=fresh_url).wait_ready()
    assert f"export GAIA_RESULT_URL='{fresh_url}'" in one.env().stdout
    one.state.rename(one.directory / ".gaia")
    monkeypatch.chdir(one.directory)
    for name in ("GAIA_REDIS_URL", "GAIA_RESULT_URL", "GAIA_ARTIFACTS__URL"):
        monkeypatch.delenv(name, raising=False)
    with producer.connected() as g:
        assert g.submit(network.Resolve("localhost")).get(timeout=30).addresses


def test_the_first_example_of_the_readme_runs_as_it_stands(up: Up, site: Site) -> None:
    """Only the web site is another: tests reach none on the internet."""
    example = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0]
    assert example.count("https://example.com/") == 2
    found = dict(re.findall(r"^export (\w+)='(.*)'$", up.env().stdout, re.MULTILINE))
    done = subprocess.run(
        [sys.executable, "-c", example.replace("https://example.com/", site.url())],
        env={**cluster.clean_environ(), **found},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("200 text/html <p>hello\nb'hello'\nb'Linux ")
    assert done.stdout.endswith(" bytes of PNG\n")


def test_the_password_is_on_no_command_line_and_in_no_output(up: Up) -> None:
    password = (up.state / "redis-password").read_text()
    lines = [line for _, line in up.command_lines()]
    assert len(lines) >= 9  # the supervisor, Redis, five workers, Flower, the monitor
    assert not any(password in word for line in lines for word in line)
    assert password not in up.said()


def test_secrets_are_for_their_user_alone(up: Up) -> None:
    assert up.state.stat().st_mode & 0o777 == 0o700
    for name in ("redis-password", "redis.conf", "env", "lock"):
        assert (up.state / name).stat().st_mode & 0o777 == 0o600


def test_a_second_cluster_in_the_same_directory_is_refused(up: Up) -> None:
    command = [*GAIA, "up", "--state-dir", str(up.state), "--flower-port", "0", "--monitor-port", "0"]
    done = subprocess.run(command, env=cluster.clean_environ(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"gaia: a cluster runs in \S+ already \(process \d+\): stop it, or .*--state-dir\n", done.stderr
    )
    assert up.env().returncode == 0


def test_flower_shows_workers_and_tasks_and_no_password(up: Up) -> None:
    page, password = up.flower(), (up.state / "redis-password").read_text()
    with Gaia(up.url()) as g:
        call = g.submit(network.Resolve("localhost"))
        call.get(timeout=30)
    # A worker is known by its next heartbeat at the latest, two seconds on; its page asks it, with a bound.
    names = until(lambda: len(workers(page)) == len(wire.QUEUES) and workers(page), what="five workers")
    assert {name.partition("@")[0] for name in names} == set(wire.QUEUES)
    paths = ["/", "/broker", "/tasks", "/metrics", f"/task/{call.id}", *[f"/worker/{name}" for name in names]]
    for path in paths:
        until(lambda path=path: get(page + path)[0] == 200, what=path)
        assert password not in get(page + path)[1]
    assert "network.resolve" in get(f"{page}/task/{call.id}")[1]
    until(lambda: "network" in get(f"{page}/broker")[1], what="the queues on the broker's page")


def test_flower_lets_nobody_stop_a_worker(up: Up) -> None:
    (name, *_) = until(lambda: workers(up.flower()))
    request = Request(f"{up.flower()}/api/worker/shutdown/{name}", method="POST")  # noqa: S310 - our own page
    with pytest.raises(HTTPError) as refused, urlopen(request, timeout=30):  # noqa: S310 - as above
        pass
    assert refused.value.code in {401, 403}
    refused.value.close()


def test_the_monitor_tells_of_every_worker_and_is_ready_as_all_consume(up: Up) -> None:
    page, password = up.monitor(), (up.state / "redis-password").read_text()
    until(lambda: get(f"{page}/readiness")[0] == 200, 60, what="readiness")
    health = until(lambda: json.loads(get(f"{page}/health")[1])["subsystems"])
    assert set(health) == set(wire.QUEUES)
    targets = json.loads(get(f"{page}/targets")[1])
    assert {each["labels"]["queues"] for each in targets} == set(wire.QUEUES)
    for each in targets:
        assert "gaia_worker_ready 1.0" in get(page + each["labels"]["__metrics_path__"])[1]
    for path in ("/metrics", "/health", "/targets", "/workers"):
        assert password not in get(page + path)[1]


# --- its beginning and its end


def test_a_killed_worker_and_a_killed_redis_come_back(start: Start) -> None:
    running_up = start("--queues", "network", "--no-flower", "--no-monitor").wait_ready()
    # Redis and Valkey show their address in place of their arguments.
    server = running_up.url().rpartition("@")[2].partition("/")[0]
    with Gaia(running_up.url()) as g:
        for ending in ("--name network", f"-server {server}"):
            victim = until(partial(running_up.program, ending), what=ending)
            victim.kill()
            victim.wait(20)
            until(partial(running_up.program, ending), what=f"the restart of {ending}")
            until(partial(_resolves, g), 60, what=f"an answer after the restart of {ending}")
    assert "ended with SIGKILL; it starts again in 0.5 s" in running_up.said()


def _resolves(g: Gaia) -> bool:
    try:
        return bool(g.submit(network.Resolve("localhost")).get(timeout=5).addresses)
    except Transient:
        return False


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_the_end(start: Start, signum: signal.Signals) -> None:
    running_up = start("--queues", "browser,process", "--flower-port", "0", "--monitor-port", "0").wait_ready()
    found = running_up.below()
    assert len(found) >= 5
    running_up.process.send_signal(signum)
    assert running_up.process.wait(60) == (-signal.SIGKILL if signum == signal.SIGKILL else 0)
    until(lambda: not running(found), 60, what="the end of every process")
    assert running_up.env().returncode == 1
    assert not (running_up.state / "env").exists()


def test_a_killed_supervisor_leaves_nothing(start: Start) -> None:
    running_up = start("--queues", "network", "--no-flower", "--no-monitor").wait_ready()
    found = running_up.below()
    (supervisor,) = psutil.Process(running_up.process.pid).children()
    supervisor.kill()
    assert running_up.process.wait(60) == 128 + signal.SIGKILL
    assert not running(found)
    assert running_up.env().returncode == 1


def test_an_end_that_is_asked_for_during_the_start_is_obeyed(start: Start) -> None:
    starting = start("--no-flower", "--no-monitor")
    found = until(lambda: len(starting.below()) >= 4 and starting.below())
    starting.process.terminate()
    assert starting.process.wait(60) == 0
    assert not running(found)
    assert "Gaia is up" not in starting.said()


def test_data_port_and_password_outlive_the_cluster(start: Start) -> None:
    urls = []
    for _ in range(2):
        one = start("--queues", "network", "--no-flower", "--no-monitor").wait_ready()
        urls.append(one.url())
        with redis.Redis.from_url(one.url()) as client:
            client.incr("starts")
            count = client.get("starts")
        one.process.terminate()
        assert one.process.wait(60) == 0
    assert urls[0] == urls[1]
    assert count == b"2"


def test_a_redis_that_settings_name_is_used(start: Start, redis_url: str) -> None:
    one = start("--queues", "network", "--no-flower", "--no-monitor", GAIA_REDIS_URL=redis_url).wait_ready()
    assert one.url() == redis_url
    assert not (one.state / "redis.conf").exists()
    with Gaia(redis_url) as g:
        assert g.submit(network.Resolve("localhost")).get(timeout=30).addresses


def test_a_chosen_redis_port_is_used(start: Start) -> None:
    port = free_port("127.0.0.1")
    one = start("--queues", "network", "--no-flower", "--no-monitor", "--redis-port", str(port)).wait_ready()
    assert f"@127.0.0.1:{port}/0" in one.url()


def test_folders_of_the_current_directory_do_not_stand_in_for_ours(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tasks", "config", "gaia"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    start("--queues", "network", "--no-flower", "--no-monitor").wait_ready()

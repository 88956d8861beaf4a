"""Real parts for tests: a Valkey server, and workers in processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from gaia import Gaia
from tasks.cli import tether
from tasks.cli.server import EmbeddedServer
from tasks.cli.state import StateDir
from tests.support.forking import Forked
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
GAIA = str(Path(sys.executable).with_name("gaia"))


@contextmanager
def valkey(directory: Path) -> Iterator[str]:
    """Run a server with its data in a directory; give its URL, password included."""
    with server(directory) as found:
        yield found.url


@contextmanager
def server(directory: Path, prefix: Sequence[str] = ()) -> Iterator["Server"]:
    """Run a server that a test may stop, kill and start again; `prefix` stands before its command, as `tied()`."""
    found = Server(directory, prefix)
    found.start()
    try:
        yield found
    finally:
        found.stop()


class Server:
    """Valkey with its data in a directory, on one port."""

    def __init__(self, directory: Path, prefix: Sequence[str] = ()) -> None:
        self._prefix = prefix
        state = StateDir(directory)
        state.create()
        self._server = EmbeddedServer(state)
        self.url = self._server.url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([*self._prefix, *self._server.argv])
        until(self._server.answering, what="the Redis server's answer")

    def stop(self) -> None:
        if self._process is not None:
            self.go_on()
            stop(self._process)
            self._process = None

    def hang(self) -> None:
        """Answer nothing and close nothing, until `go_on`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Process(Protocol):
    """What tests do with the process of a worker."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Worker:
    """A worker process and its log."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log

    def wait_ready(self) -> "Worker":
        until(self._ready, 60, what=f"a worker's readiness, see {self.log}")
        return self

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"the worker ended:\n{self.text()}"
        return " ready." in self.text()


def executed(argv: Sequence[str], environ: Mapping[str, str], log: Path) -> Worker:
    """Start a worker by a command."""
    with log.open("ab") as output:
        env = {**clean_environ(), **environ}
        return Worker(subprocess.Popen(argv, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT), log)


def tied() -> list[str]:
    """Give what before a command has it killed when the thread that starts it ends, however that ends."""
    return [sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid())]


def clean_environ() -> dict[str, str]:
    """Give this process's environment without Gaia's variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GAIA_")}


def endpoint(url: str, name: str = "") -> str:
    """Give where the pages of a worker are: of the one whose name begins so."""
    with Gaia(url) as g:
        return next(each.endpoint for each in g.nodes() if each.name.startswith(name))


def get(url: str, **headers: str) -> tuple[int, str]:
    """Read a page on this machine; give its status and text."""
    try:
        with urlopen(Request(url, headers=headers), timeout=20) as reply:  # noqa: S310 - our own page
            return reply.status, reply.read().decode()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


@contextmanager
def worker(url: str, *queues: str, log: Path, **environ: str) -> Iterator[Worker]:
    """Run `gaia worker`; stop it at the end. One that starts programs or browsers is executed, others are forked."""
    environ["GAIA_REDIS_URL"] = url
    if {"process", "browser"}.isdisjoint(queues):
        found = Worker(Forked(_gaia, [("worker", *queues)], {**clean_environ(), **environ}, log), log)
    else:
        found = executed([GAIA, "worker", *queues], environ, log)
    with _running(found):
        yield found


def _gaia(arguments: Sequence[str]) -> None:
    from tasks.cli.main import main

    main(arguments)


@contextmanager
def probe_worker(url: str, *, log: Path, name: str | None = None, **environ: str) -> Iterator[Worker]:
    """Run a worker of the test operations, see `tests.support.probe`; stop it at the end."""
    process = Forked(_probe, [name], {**clean_environ(), "GAIA_REDIS_URL": url, **environ}, log)
    with _running(Worker(process, log)) as found:
        yield found


def _probe(name: str | None) -> None:
    from tests.support.probe_worker import main

    main(name)


@contextmanager
def executed_probe_worker(url: str, *, log: Path, name: str, **environ: str) -> Iterator[Worker]:
    """Run one by its command, which executes itself anew when it is told to."""
    argv = [sys.executable, "-m", "tests.support.probe_worker", name]
    with _running(executed(argv, {"GAIA_REDIS_URL": url, **environ}, log)) as found:
        yield found


@contextmanager
def _running(found: Worker) -> Iterator[Worker]:
    try:
        yield found.wait_ready()
    finally:
        stop(found.process)


def stop(process: Process, timeout_s: float = 30.0) -> int:
    """End a process by SIGTERM, by SIGKILL if that takes too long, and reap it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()

"""Profiles of real workers: by their own pages, through the monitor, and by the command."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from time import time
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import pytest
import redis

from gaia import Gaia
from gaia.store.nodes import Node, beat, leave
from tasks.cli.server import free_port
from tasks.cli.state import StateDir
from tasks.profiling.profile import Profile
from tasks.profiling.waits import LOCK, RUNS, SAMPLER, TOLD
from tests.support import cluster
from tests.support.cluster import endpoint, get
from tests.support.probe import Clog, Contend, Echo, Hold, Seize
from tests.support.waiting import until

TOKEN = "0123456789abcdef-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

MOMENT = "seconds=0.5"


class Running:
    """Two workers and a monitor behind a token."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.port = url, folder, free_port("127.0.0.1")
        self.environ = {"GAIA_REDIS_URL": url, "GAIA_MONITOR__TOKEN": TOKEN, "GAIA_MONITOR__PORT": str(self.port)}
        self.monitor = f"http://127.0.0.1:{self.port}"

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-P", "-m", "tasks.cli.main", "profile", *arguments]
        environ = {**cluster.clean_environ(), **self.environ}
        return subprocess.run(
            argv, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=90, check=False
        )


@pytest.fixture(scope="module")
def running(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("profiles")
    found = Running(redis_url, folder)
    with (folder / "monitor").open("w") as out:
        argv = [sys.executable, "-P", "-m", "tasks.cli.main", "monitor"]
        process = subprocess.Popen(argv, env={**cluster.clean_environ(), **found.environ}, stdout=out, stderr=out)
    try:
        with (
            cluster.probe_worker(redis_url, log=folder / "a", name="a", GAIA_MONITOR__TOKEN=TOKEN),
            cluster.probe_worker(redis_url, log=folder / "b", name="b", GAIA_MONITOR__TOKEN=TOKEN),
        ):
            until(lambda: " at http" in (folder / "monitor").read_text(), 60)
            until(lambda: len(json.loads(get(f"{found.monitor}/targets", **BEARER)[1])) == 2, 30)
            yield found
    finally:
        cluster.stop(process)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One worker of a database of its own, so that every call is its."""
    folder = tmp_path_factory.mktemp("alone")
    with cluster.valkey(folder / "valkey") as url:
        found = Running(url, folder)
        with cluster.probe_worker(url, log=folder / "log", GAIA_MONITOR__TOKEN=TOKEN):
            yield found


def node(running: Running, name: str) -> str:
    with Gaia(running.url) as g:
        return next(each.name for each in g.nodes() if each.name.startswith(f"{name}@"))


def raw(address: str) -> tuple[int, str]:
    return get(address, **BEARER)


def test_without_a_token_there_is_no_profile(fresh_url: str, tmp_path: Path) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"):
        for page in ("profile", "heap", "waits", "threads", "tasks", "gc", ""):
            assert get(f"{endpoint(fresh_url)}/debug/pprof/{page}")[0] == 404


@pytest.mark.parametrize("page", ["profile", "waits", "threads", "tasks"])
def test_a_profile_needs_the_token(running: Running, page: str) -> None:
    for address in (endpoint(running.url, "a@"), running.monitor):
        assert get(f"{address}/debug/pprof/{page}")[0] == 401


def test_a_worker_shows_its_threads_its_calls_and_its_collector(running: Running, marks: tuple[str, str]) -> None:
    with Gaia(running.url) as g:
        calls = [g.submit(Hold(*marks)) for _ in range(8)]
        address = endpoint(running.url, "a@")
        try:
            text = until(lambda: "probe.hold" in (text := raw(f"{address}/debug/pprof/tasks")[1]) and text)
            assert any(each.id in text for each in calls)
            assert marks[0] not in text
            threads = until(lambda: "hold" in (text := raw(f"{address}/debug/pprof/threads")[1]) and text)
            assert "gaia-call-0" in threads
            assert "collections" in raw(f"{address}/debug/pprof/gc")[1]
        finally:
            Path(marks[1]).touch()
        for each in calls:
            each.get(timeout=30)


def test_a_cpu_profile_of_a_worker_that_works_names_what_it_does(running: Running) -> None:
    with Gaia(running.url) as g:
        calls = [g.submit(Echo(str(number))) for number in range(300)]
        status, text = raw(f"{endpoint(running.url, 'a@')}/debug/pprof/profile?seconds=1&format=folded")
        for each in calls:
            each.get(timeout=60)
    assert status == 200
    assert "asynloop" in text


def test_one_profile_at_a_time(running: Running) -> None:
    address = f"{endpoint(running.url, 'b@')}/debug/pprof/"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(raw, f"{address}profile?format=folded&seconds=4")
        until(lambda: "sampling.py" in raw(f"{address}threads")[1])
        assert raw(f"{address}heap?seconds=0.01&format=folded")[0] == 409
        assert first.result(30)[0] == 200
    assert raw(f"{address}heap?seconds=0.01&format=folded")[0] == 200


def test_the_workers_of_a_queue_are_profiled_as_one(running: Running) -> None:
    status, text = raw(f"{running.monitor}/debug/pprof/profile?queue=probe&{MOMENT}&format=json")
    both = json.loads(text)
    (one,) = [
        json.loads(
            raw(f"{running.monitor}/debug/pprof/profile?worker={quote(node(running, 'a'))}&{MOMENT}&format=json")[1]
        )
    ]
    assert status == 200
    assert sum(values[0] for _, values in both["stacks"]) > 1.5 * sum(values[0] for _, values in one["stacks"])
    status, text = raw(f"{running.monitor}/debug/pprof/threads?queue=probe")
    assert status == 200
    assert text.count("=== ") == 2


class Waits(NamedTuple):
    """A report of a worker: seconds by state and innermost function, and what the sampler and the loops waited."""

    seconds: dict[tuple[str, str], float]

    @classmethod
    def of(cls, address: str) -> Self:
        status, body = raw(f"{address}/debug/pprof/waits?seconds=1.5&format=json")
        assert status == 200, body
        found: dict[tuple[str, str], float] = {}
        for (root, *stack), (_, spent_ns) in Profile.read(body.encode()).stacks.items():
            key = root.function, stack[-1].function if stack else ""
            found[key] = found.get(key, 0.0) + spent_ns / 1e9
        return cls(found)

    def __getitem__(self, key: Any) -> float:
        return self.seconds.get(key, 0.0)


@contextmanager
def under_way(running: Running, *calls: Any) -> Iterator[None]:
    """Have calls run on a worker, each until its file is there."""
    with Gaia(running.url) as g:
        pending = [g.submit(each) for each in calls]
        try:
            until(lambda: any(Path(each.started).exists() for each in calls), 60)
            yield
        finally:
            for each in calls:
                Path(each.release).touch()
        for one in pending:
            one.get(timeout=60)


def files_of(folder: Path, name: str) -> tuple[str, str]:
    return str(folder / f"{name}.started"), str(folder / f"{name}.release")


def test_the_waits_of_a_worker_name_the_lock_that_its_calls_wait_for(alone: Running, tmp_path: Path) -> None:
    with under_way(alone, Contend(*files_of(tmp_path, "a")), Contend(*files_of(tmp_path, "b"))):
        found = until(lambda: (seen := Waits.of(endpoint(alone.url)))[LOCK, "contend"] > 1.0 and seen, 60)
    assert max((each for each in found.seconds if each[0] == LOCK), key=found.__getitem__) == (LOCK, "contend")


def test_the_waits_of_a_worker_tell_that_a_call_holds_the_interpreter(alone: Running, tmp_path: Path) -> None:
    with under_way(alone, Seize(*files_of(tmp_path, "a"))):
        status, text = raw(f"{endpoint(alone.url)}/debug/pprof/waits?seconds=1.5")
        found = Waits.of(endpoint(alone.url))
    assert status == 200
    assert "seize (tests/support/probe.py:" in text.partition(RUNS + "\n")[2]
    runs = max((each for each in found.seconds if each[0] == RUNS), key=found.__getitem__)
    assert runs == (RUNS, "seize")
    assert sum(spent for (root, _), spent in found.seconds.items() if root == SAMPLER) > 0.1


def test_the_waits_of_a_worker_show_what_keeps_its_loop_from_turning(alone: Running, tmp_path: Path) -> None:
    where = endpoint(alone.url)
    with under_way(alone, Clog(*files_of(tmp_path, "a"))):
        status, body = raw(f"{where}/debug/pprof/waits?seconds=2.5&format=json")
        assert status == 200
    told = {stack for stack in Profile.read(body.encode()).stacks if stack[0].function == TOLD}
    # One for each line that was looked at.
    blocked = [stack for stack in told if any(each.function.endswith("clog.<locals>.block") for each in stack)]
    assert blocked
    for stack in blocked:
        assert "asynloop" in {each.function for each in stack}
    late = r'gaia_loop_lag_seconds_sum\{loop="worker"\} ([0-9.e+-]+)'
    until(lambda: float(re.findall(late, raw(f"{where}/metrics")[1])[0]) > 1.0, 60)


def test_the_waits_of_a_queue_are_added_up_and_shown_by_the_command(running: Running) -> None:
    done = running.command("waits", "--queue", "probe", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert "A thread that wanted the interpreter waited" in done.stdout
    assert "A timer of the worker loop ran" in done.stdout
    done = running.command("waits", node(running, "a"), "--seconds", "0.5", "--format", "svg")
    assert done.returncode == 0, done.stderr
    assert (running.folder / "waits.svg").read_bytes().startswith(b"<svg")
    assert raw(f"{running.monitor}/debug/pprof/profile?queue=probe&format=text")[0] == 400


def test_the_command_tells_how_many_workers_of_a_queue_gave_no_profile(running: Running) -> None:
    where = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    gone = Node("gone@vm", "b" * 16, 1, gethostname(), ("probe",), 1, "0.1.0", time(), endpoint=where)
    with redis.Redis.from_url(running.url) as client:
        try:
            until(lambda: beat(client, gone) is not None and "gone@vm" in raw(f"{running.monitor}/workers")[1])
            done = running.command("cpu", "--queue", "probe", "--seconds", "0.5", "--output", "some.svg")
        finally:
            leave(client, gone)
    assert done.returncode == 0, done.stderr
    assert "2 of 3 workers answered" in done.stderr
    until(lambda: "gone@vm" not in raw(f"{running.monitor}/targets")[1])


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("worker=none@vm", 404),
        ("queue=probe&seconds=0", 400),
        ("queue=probe&seconds=1e9", 400),
        ("queue=probe&seconds=nan", 400),
        ("queue=probe&format=png", 400),
    ],
)
def test_what_cannot_be_had_is_refused(running: Running, query: str, status: int) -> None:
    assert raw(f"{running.monitor}/debug/pprof/profile?{query}")[0] == status


@pytest.mark.parametrize(
    ("form", "name"), [("svg", "cpu.svg"), ("pprof", "cpu.pb.gz"), ("speedscope", "cpu.speedscope.json")]
)
def test_the_command_writes_a_profile_in_each_format(running: Running, form: str, name: str) -> None:
    done = running.command("cpu", node(running, "a"), "--seconds", "0.5", "--format", form)
    assert done.returncode == 0, done.stderr
    body = (running.folder / name).read_bytes()
    assert body.startswith({"svg": b"<svg", "pprof": b"\x1f\x8b", "speedscope": b"{"}[form])
    if form == "pprof":
        assert b"nanoseconds" in gzip.decompress(body)
    (running.folder / name).unlink()


def test_the_command_shows_threads_and_tasks_and_profiles_the_heap_of_a_queue(running: Running) -> None:
    assert "gaia-call-0" in running.command("threads", node(running, "b")).stdout
    assert "0 calls" in running.command("tasks", node(running, "b")).stdout
    done = running.command("heap", "--queue", "probe", "--seconds", "0.5", "--output", "heap.txt", "--format", "folded")
    assert done.returncode == 0, done.stderr
    assert (running.folder / "heap.txt").exists()


def test_the_command_says_what_is_missing(running: Running) -> None:
    assert "Name one worker, or --queue." in running.command("cpu").stderr
    nobody = running.command("cpu", "none@vm", "--seconds", "0.5").stderr
    assert "no worker is called none@vm; there are: " in nobody
    assert node(running, "a") in nobody
    assert "no worker serves the queue none; there are: " in running.command("cpu", "--queue", "none").stderr
    assert not (running.folder / "cpu.svg").exists()
    running.environ.pop("GAIA_MONITOR__TOKEN")
    assert "GAIA_MONITOR__TOKEN" in running.command("threads", "x@vm").stderr
    running.environ["GAIA_MONITOR__TOKEN"] = "another-0123456789"
    assert "gaia: GAIA_MONITOR__TOKEN is wrong: " in running.command("threads", "x@vm").stderr
    running.environ["GAIA_MONITOR__TOKEN"] = TOKEN


def test_the_command_finds_the_monitor_of_the_cluster_that_runs_here(running: Running, tmp_path: Path) -> None:
    state = StateDir(tmp_path / ".gaia")
    state.create()
    here = Running(running.url, tmp_path)
    with state.locked():
        state.announce({"GAIA_REDIS_URL": running.url, "GAIA_MONITOR__PORT": str(running.port)})
        here.environ = {"GAIA_MONITOR__TOKEN": TOKEN}
        assert "gaia-call-0" in here.command("threads", node(running, "b")).stdout
        here.environ["GAIA_REDIS_URL"] = "redis://elsewhere.invalid/0"
        assert "does not answer on port 9808 of 127.0.0.1" in here.command("threads", "b@vm").stderr


def test_py_spy_samples_the_worker_of_the_cluster_that_runs_here(running: Running, tmp_path: Path) -> None:
    name = node(running, "a")
    program = tmp_path / "bin" / "py-spy"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >called\n')
    program.chmod(0o755)
    state = StateDir(tmp_path / ".gaia")
    state.create()
    here = Running(running.url, tmp_path)
    here.environ = {"PATH": f"{program.parent}:{os.defpath}"}
    with state.locked(), Gaia(running.url) as g:
        state.announce({"GAIA_REDIS_URL": running.url})
        done = here.command("cpu", name, "--py-spy", "--seconds", "2")
        assert done.returncode == 0, done.stderr
        pid = next(each.pid for each in g.nodes() if each.name == name)
        told = f"record --pid {pid} --format flamegraph --duration 2 --output cpu.svg\n"
        assert (tmp_path / "called").read_text() == told
        assert f"no worker is called x; there are: {name}" in here.command("cpu", "x", "--py-spy").stderr

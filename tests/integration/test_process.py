"""Programs through the queue: they live on one worker, and end with it."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from gaia import Gaia, process
from gaia.errors import HolderLost, NotReady
from tests.support import cluster
from tests.support.waiting import until

SETTINGS = {
    "GAIA_PROCESS__EXECUTABLES": '["/bin/sh", "/bin/sleep"]',
    "GAIA_PROCESS__GRACE_S": "1",
    "GAIA_WORKER__GRACE_S": "0.5",
}


@pytest.fixture
def marker() -> Iterator[str]:
    """A number of seconds for `sleep` that no other process has; at the end no process has it any more."""
    found = f"1000.{secrets.randbelow(10**12):012}"
    yield found
    until(lambda: bearers(found) == [], 5)


def bearers(marker: str) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline", "status"])
    return [
        each
        for each in found
        if each.info["status"] != psutil.STATUS_ZOMBIE and marker in " ".join(each.info["cmdline"] or ())
    ]


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


@pytest.fixture
def producer(fresh_url: str) -> Iterator[Gaia]:
    with Gaia(fresh_url) as found:
        yield found


def test_a_started_program_is_asked_and_ended_where_it_lives(
    fresh_url: str, producer: Gaia, tmp_path: Path, marker: str
) -> None:
    with (
        cluster.worker(fresh_url, "process", "--name", "a", log=tmp_path / "a.log", **SETTINGS),
        cluster.worker(fresh_url, "process", "--name", "b", log=tmp_path / "b.log", **SETTINGS),
    ):
        script = f"echo ready; read line; echo got $line; sleep {marker}"
        pending = [producer.submit(process.Start(shell(script), stdin_open=True)) for _ in range(4)]
        started = [each.get(timeout=30) for each in pending]
        for each in started:
            assert producer.submit(process.Output(each.id, wait_s=10)).get(timeout=20).data == b"ready\n"
            assert producer.submit(process.Write(each.id, b"word\n")).get(timeout=20).size_bytes == 5
            state = producer.submit(process.Status(each.id)).get(timeout=20)
            assert (state.worker, state.pid, state.running) == (each.worker, each.pid, True)
        listed = producer.submit(process.List()).get(timeout=20).processes
        assert {each.id for each in listed} == {each.id for each in started}
        assert not any(each.lost for each in listed)
        waiting = producer.submit(process.Wait(started[0].id))
        with pytest.raises(NotReady):
            waiting.get(timeout=2.5)
        for each in started:
            ended = producer.submit(process.Kill(each.id)).get(timeout=20).exited
            assert ended is not None
            assert (ended.reason, ended.stdout) == ("cancelled", b"ready\ngot word\n")
        assert waiting.get(timeout=20).exited is not None


def test_a_killed_worker_takes_its_programs_along_and_its_ids_are_lost(
    fresh_url: str, producer: Gaia, tmp_path: Path, marker: str
) -> None:
    with cluster.worker(fresh_url, "process", "--name", "c", log=tmp_path / "c.log", **SETTINGS) as worker:
        started = producer.submit(process.Start(shell(f"(setsid sleep {marker} &); sleep {marker}"))).get(timeout=30)
        producer.submit(process.Run(("/bin/sleep", marker)), deadline=3)
        waiting = producer.submit(process.Wait(started.id))
        reading = producer.submit(process.Output(started.id, wait_s=30))
        until(lambda: len(bearers(marker)) == 4)
        worker.process.kill()
        until(lambda: bearers(marker) == [], 5)
    with cluster.worker(fresh_url, "process", "--name", "c", log=tmp_path / "c2.log", **SETTINGS):
        with pytest.raises(HolderLost):
            producer.submit(process.Status(started.id)).get(timeout=20)
        for each in (waiting, reading):
            with pytest.raises(HolderLost):
                each.get(timeout=30)
        (left,) = producer.submit(process.List()).get(timeout=20).processes
        assert (left.id, left.lost) == (started.id, True)
        assert producer.submit(process.Cleanup()).get(timeout=20).records == 1
        assert producer.submit(process.List()).get(timeout=20).processes == ()


def test_a_profile_has_its_places_over_two_workers(fresh_url: str, producer: Gaia, tmp_path: Path) -> None:
    settings = {**SETTINGS, "GAIA_PROCESS__PROFILES": '{"single": {"concurrency": 1}}'}
    with (
        cluster.worker(fresh_url, "process", "--name", "a", log=tmp_path / "a.log", **settings),
        cluster.worker(fresh_url, "process", "--name", "b", log=tmp_path / "b.log", **settings),
    ):
        # A directory can be made once: a second program at the same time ends with 9.
        script = f"mkdir {tmp_path}/alone || exit 9; sleep 0.05; rmdir {tmp_path}/alone"
        pending = [producer.submit(process.Run(shell(script), profile="single")) for _ in range(5)]
        assert [each.get(timeout=60).exit_code for each in pending] == [0] * 5


def test_a_stopping_worker_tells_every_caller(fresh_url: str, producer: Gaia, tmp_path: Path, marker: str) -> None:
    with cluster.worker(fresh_url, "process", log=tmp_path / "d.log", **SETTINGS) as worker:
        script = f"trap 'echo bye; exit 3' TERM; echo ready; sleep {marker} & wait"
        started = producer.submit(process.Start(shell(script))).get(timeout=30)
        running = producer.submit(process.Run(shell(script)))
        deaf = producer.submit(process.Run(shell(f"trap '' TERM; sleep {marker}; sleep {marker}")))
        until(lambda: len(bearers(marker)) == 6)
        waiting = producer.submit(process.Wait(started.id, timeout_s=30))
        with pytest.raises(NotReady):
            waiting.get(timeout=0.4)
        worker.process.terminate()
        for found in (running.get(timeout=20), waiting.get(timeout=20).exited):
            assert found is not None
            assert (found.reason, found.exit_code, found.stdout) == ("worker_stopped", 3, b"ready\nbye\n")
        assert (deaf.get(timeout=20).reason, deaf.get().signal) == ("worker_stopped", 9)
        assert worker.process.wait(20) == 0


def test_callers_that_wait_without_a_slot_are_told_of_the_worker_s_end_too(
    fresh_url: str, producer: Gaia, tmp_path: Path, marker: str
) -> None:
    """Another worker lives, which answers for nodes that have gone, and the one that stops takes its time."""
    slow = SETTINGS | {"GAIA_WORKER__GRACE_S": "6"}
    with (
        cluster.worker(fresh_url, "process", "--name", "e", log=tmp_path / "e.log", **slow) as worker,
        cluster.worker(fresh_url, "api", "--name", "f", log=tmp_path / "f.log"),
        redis.Redis.from_url(fresh_url) as client,
    ):
        script = f"trap 'echo bye; exit 3' TERM; echo ready; sleep {marker} & wait"
        started = producer.submit(process.Start(shell(script))).get(timeout=30)
        waiting = [producer.submit(process.Wait(started.id)) for _ in range(3)]
        short = producer.submit(process.Wait(started.id, timeout_s=0.1)).get(timeout=20)
        assert short.running
        until(lambda: client.hlen("gaia:delayed:messages") == 3)
        reading = producer.submit(process.Output(started.id, offset=6, wait_s=30))
        until(lambda: producer.submit(process.Status(started.id)).get(timeout=20).running)
        worker.process.terminate()
        for each in waiting:
            found = each.get(timeout=20).exited
            assert found is not None
            assert (found.reason, found.exit_code, found.stdout) == ("worker_stopped", 3, b"ready\nbye\n")
        assert reading.get(timeout=20).data == b"bye\n"
        assert worker.process.wait(20) == 0
        assert client.hlen("gaia:delayed:messages") == 0
        client.connection_pool.disconnect()

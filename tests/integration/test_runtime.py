"""Workers as nodes: heartbeat, own queue, calls that belong to one process, and renewal in place."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from gaia import Gaia, errors
from gaia.sticky import HolderId
from gaia.store import keys
from gaia.store.nodes import LIFE_S, Node
from gaia.store.scripts import script
from tests.chaos.proxy import Proxy
from tests.chaos.server import Server
from tests.support import cluster
from tests.support.probe import AskThing, DropThing, Echo, Grow, Hold, HoldThing, Stick
from tests.support.waiting import until

GONE_WITHIN_S = 15.0
"""A life of ten seconds, a beat of two, and a busy machine."""


@pytest.fixture
def gaia(fresh_url: str) -> Iterator[Gaia]:
    with Gaia(fresh_url) as found:
        yield found


@pytest.fixture
def client(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


def node(gaia: Gaia, name: str) -> Node | None:
    return next((each for each in gaia.nodes() if each.name.startswith(f"{name}@")), None)


def held_by(gaia: Gaia, name: str) -> str:
    """Have the worker of that name hold a thing."""

    def attempt() -> str | None:
        made = gaia.submit(HoldThing()).get(timeout=20).text
        return made if HolderId.parse(made).node.startswith(f"{name}@") else None

    return until(attempt)


def test_a_ready_worker_is_a_node_and_one_that_stopped_is_none(fresh_url: str, gaia: Gaia, tmp_path: Path) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a") as worker:
        (found,) = gaia.nodes()
        assert found.name == f"a@{found.host}"
        assert (found.pid, found.queues, found.concurrency) == (worker.process.pid, ("probe",), 4)
        assert (
            found.started_at
            <= until(lambda: [each for each in gaia.nodes() if each.seen_at > found.seen_at])[0].seen_at
        )
    assert gaia.nodes() == []


def test_a_connection_that_falls_silent_takes_no_node_from_the_living(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "redis") as server,
        Proxy(server.port) as proxy,
        cluster.probe_worker(proxy.url, log=tmp_path / "a.log", name="a"),
        Gaia(server.url) as gaia,
    ):
        (before,) = gaia.nodes()
        proxy.go_silent()

        def outlived_the_silence() -> bool:
            (found,) = gaia.nodes()
            return found.seen_at > before.seen_at + LIFE_S

        until(outlived_the_silence, 40)


def test_calls_about_a_thing_reach_the_process_that_holds_it(fresh_url: str, gaia: Gaia, tmp_path: Path) -> None:
    with (
        cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a") as a,
        cluster.probe_worker(fresh_url, log=tmp_path / "b.log", name="b") as b,
    ):
        things = {each.process.pid: held_by(gaia, name) for each, name in ((a, "a"), (b, "b"))}
        for pid, thing in things.items():
            calls = [AskThing(thing)] * 10
            single = [gaia.submit(each, priority=number).get(timeout=20).text for number, each in enumerate(calls)]
            bulk = [each.unwrap().get(timeout=20).text for each in gaia.submit_many(calls)]
            assert set(single + bulk) == {str(pid)}
        later = gaia.submit(AskThing(things[a.process.pid]), delay=0.3)
        assert later.get(timeout=20).text == str(a.process.pid)


def test_a_foreign_producers_call_on_the_shared_queue_is_forwarded(
    fresh_url: str, gaia: Gaia, tmp_path: Path, client: redis.Redis
) -> None:
    with (
        cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a") as a,
        cluster.probe_worker(fresh_url, log=tmp_path / "b.log", name="b"),
        Celery("foreign", broker=fresh_url, set_as_current=False) as foreign,
    ):
        thing = held_by(gaia, "a")
        sent = [
            foreign.send_task("probe.ask_thing", kwargs={"thing": thing}, queue="probe", priority=each)
            for each in range(10)
        ]
        answers = {gaia.pending(each.id, AskThing).get(timeout=20).text for each in sent}
        assert answers == {str(a.process.pid)}
        until(lambda: client.hlen("unacked") == client.hlen(keys.HELD) == 0)


def test_a_call_about_nothing_that_lives_is_refused_at_submit(fresh_url: str, gaia: Gaia, tmp_path: Path) -> None:
    with pytest.raises(errors.HolderLost):
        gaia.submit(AskThing(HolderId.new("nobody@nowhere", "0" * 16).format()))
    with cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a"):
        (found,) = gaia.nodes()
        earlier = AskThing(HolderId.new(found.name, "0" * 16).format())
        with pytest.raises(errors.HolderLost):
            gaia.submit(earlier, delay=1, idempotency_key="x")
        (outcome,) = gaia.submit_many([earlier])
        assert isinstance(outcome.error, errors.HolderLost)
        with Celery("foreign", broker=fresh_url, set_as_current=False) as foreign:
            for thing in (earlier.thing, HolderId.new("nobody@nowhere", "0" * 16).format()):
                sent = foreign.send_task("probe.ask_thing", kwargs={"thing": thing}, queue="probe")
                with pytest.raises(errors.HolderLost):
                    gaia.pending(sent.id, AskThing).get(timeout=20)
            sent = foreign.send_task("probe.ask_thing", kwargs={"thing": "no id"}, queue="probe")
            with pytest.raises(errors.InvalidCall):
                gaia.pending(sent.id, AskThing).get(timeout=20)


def test_callers_of_a_killed_worker_hear_of_it_within_seconds(
    fresh_url: str, gaia: Gaia, tmp_path: Path, client: redis.Redis, marks: tuple[str, str]
) -> None:
    with (
        cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a") as a,
        cluster.probe_worker(fresh_url, log=tmp_path / "b.log", name="b"),
    ):
        thing = held_by(gaia, "a")
        running = gaia.submit(AskThing(thing, *marks))
        until(Path(marks[0]).exists)
        a.process.send_signal(signal.SIGSTOP)
        queued = [gaia.submit(AskThing(thing), priority=each) for each in (0, 3, 6, 9)]
        told_nobody = gaia.submit(AskThing(thing), result=False)
        a.process.kill()
        for each in (running, *queued):
            with pytest.raises(errors.HolderLost):
                each.get(timeout=GONE_WITHIN_S)
        letter = until(lambda: gaia.dead.show(told_nobody.id))
        assert letter.operation == "probe.ask_thing"
        with pytest.raises(errors.HolderLost):
            gaia.submit(AskThing(thing))
        until(lambda: client.zcard(keys.NODES) == 1)
        assert client.exists(keys.ORPHANS) == client.hlen(keys.HELD) == 0
        assert list(client.scan_iter("gaia.node.*")) == []


def test_a_delayed_call_whose_node_goes_meanwhile_is_answered(
    fresh_url: str, gaia: Gaia, tmp_path: Path, client: redis.Redis
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "b.log", name="b"):
        with cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a"):
            thing = held_by(gaia, "a")
            pending = gaia.submit(AskThing(thing), delay=86_400)
            with Celery("foreign", broker=fresh_url, set_as_current=False) as foreign:
                by_retry = foreign.send_task(
                    "probe.ask_thing",
                    kwargs={"thing": thing},
                    queue=keys.own_queue(HolderId.parse(thing).node),
                    countdown=3,
                )
                until(lambda: gaia.queues.delayed() == 2)
        with pytest.raises(errors.HolderLost):
            pending.get(timeout=5)
        with pytest.raises(errors.HolderLost):
            gaia.pending(by_retry.id, AskThing).get(timeout=3 + GONE_WITHIN_S)
        until(lambda: client.zcard(keys.NODES) == 1)


def test_callers_of_a_stopped_worker_hear_of_it(
    fresh_url: str, gaia: Gaia, tmp_path: Path, marks: tuple[str, str], client: redis.Redis
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "b.log", name="b"):
        log = tmp_path / "a.log"
        with cluster.probe_worker(fresh_url, log=log, name="a", GAIA_WORKER__GRACE_S="0.5") as worker:
            thing = held_by(gaia, "a")
            pending = [gaia.submit(AskThing(thing, *marks)) for _ in range(12)]
            until(Path(marks[0]).exists)
            assert cluster.stop(worker.process) == 0
        for each in pending:
            with pytest.raises(errors.HolderLost):
                each.get(timeout=GONE_WITHIN_S)
        until(lambda: client.zcard(keys.NODES) == 1)
        assert list(client.scan_iter("gaia.node.*")) == []


def test_the_last_worker_to_stop_answers_what_waits_on_its_queue(
    fresh_url: str, gaia: Gaia, tmp_path: Path, marks: tuple[str, str]
) -> None:
    log = tmp_path / "a.log"
    with cluster.probe_worker(fresh_url, log=log, name="a", GAIA_WORKER__GRACE_S="0.5") as worker:
        thing = held_by(gaia, "a")
        pending = [gaia.submit(AskThing(thing, *marks)) for _ in range(12)]
        until(Path(marks[0]).exists)
        assert cluster.stop(worker.process) == 0
    # As many as run and as many again may have been fetched.
    with pytest.raises(errors.HolderLost):
        pending[-1].get(timeout=0)


def test_a_restarted_worker_answers_calls_of_its_earlier_boot(fresh_url: str, gaia: Gaia, tmp_path: Path) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "first.log", name="a") as first:
        thing = held_by(gaia, "a")
        first.process.send_signal(signal.SIGSTOP)
        pending = gaia.submit(AskThing(thing))
        first.process.kill()
        first.process.wait()
        with cluster.probe_worker(fresh_url, log=tmp_path / "second.log", name="a"):
            with pytest.raises(errors.HolderLost):
                pending.get(timeout=GONE_WITHIN_S)
            with pytest.raises(errors.HolderLost):
                gaia.submit(AskThing(thing))


def test_a_second_worker_under_a_name_does_not_start(fresh_url: str, gaia: Gaia, tmp_path: Path) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "first.log", name="a") as first:
        thing = held_by(gaia, "a")
        (before,) = gaia.nodes()
        argv = [sys.executable, "-m", "tests.support.probe_worker", "a"]
        second = cluster.executed(argv, {"GAIA_REDIS_URL": fresh_url}, tmp_path / "second.log")
        assert second.process.wait(30) == 1
        assert f"a worker called {before.name} lives already, with pid {first.process.pid}" in second.text()
        assert " ready." not in second.text()
        assert "Traceback" not in second.text()
        (after,) = gaia.nodes()
        assert after.boot == before.boot
        assert gaia.submit(AskThing(thing)).get(timeout=20).text == str(first.process.pid)


def test_a_worker_whose_name_was_taken_while_it_was_stopped_ends(
    fresh_url: str, gaia: Gaia, client: redis.Redis, tmp_path: Path
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "first.log", name="a") as first:
        first.process.send_signal(signal.SIGSTOP)
        until(lambda: not gaia.nodes(), LIFE_S + 5)
        with cluster.probe_worker(fresh_url, log=tmp_path / "second.log", name="a") as second:
            thing = held_by(gaia, "a")
            first.process.send_signal(signal.SIGCONT)
            asked = [gaia.submit(AskThing(thing)) for _ in range(20)]
            assert first.process.wait(30) == 1
            assert "another worker is called a@" in first.text()
            assert {each.get(timeout=20).text for each in asked} == {str(second.process.pid)}
            assert gaia.submit(AskThing(thing)).get(timeout=20).text == str(second.process.pid)
            assert [each.pid for each in gaia.nodes()] == [second.process.pid]


def test_a_worker_that_crashed_is_started_again_under_its_name_at_once(
    fresh_url: str, gaia: Gaia, client: redis.Redis, tmp_path: Path
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "first.log", name="a") as first:
        delayed = gaia.submit(AskThing(held_by(gaia, "a")), delay=86_400)
        first.process.kill()
        first.process.wait()
        (left,) = gaia.nodes()
        client.persist(keys.node(left.name))
        with cluster.probe_worker(fresh_url, log=tmp_path / "second.log", name="a") as second:
            assert [each.pid for each in gaia.nodes()] == [second.process.pid]
            with pytest.raises(errors.HolderLost):
                delayed.get(timeout=5)
            assert gaia.queues.delayed() == 0


def test_a_paused_queue_holds_up_calls_on_own_queues_too(
    fresh_url: str, gaia: Gaia, client: redis.Redis, tmp_path: Path
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a") as worker:
        thing = held_by(gaia, "a")
        client.sadd(keys.PAUSED, "probe")
        pending = gaia.submit(AskThing(thing))
        until(lambda: client.llen(keys.aside("probe")) == 1)
        assert not pending.ready()
        script(client, "resume")(keys=[keys.PAUSED, keys.aside("probe")], args=["probe"])
        assert pending.get(timeout=20).text == str(worker.process.pid)


def test_a_call_that_a_pause_holds_up_is_answered_when_its_worker_goes(
    fresh_url: str, gaia: Gaia, client: redis.Redis, tmp_path: Path
) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "b.log", name="b"):
        with cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a"):
            thing = held_by(gaia, "a")
            client.sadd(keys.PAUSED, "probe")
            pending = gaia.submit(AskThing(thing))
            until(lambda: client.llen(keys.aside("probe")) == 1)
        with pytest.raises(errors.HolderLost):
            pending.get(timeout=GONE_WITHIN_S)
        until(lambda: client.llen(keys.aside("probe")) == 0)


# --- the memory bound

BOUND_BYTES = 300_000_000
"""More than a worker has, less than it has after a call of `GROW`."""

GROW = Grow(BOUND_BYTES)


@pytest.fixture
def bounded(fresh_url: str, tmp_path: Path) -> Iterator[cluster.Worker]:
    bound = {"GAIA_WORKER__MEMORY_BYTES": str(BOUND_BYTES), "GAIA_WORKER__GRACE_S": "30"}
    with cluster.executed_probe_worker(fresh_url, log=tmp_path / "a.log", name="a", **bound) as found:
        yield found


def test_past_its_memory_bound_a_worker_is_renewed_in_place(
    gaia: Gaia, bounded: cluster.Worker, marks: tuple[str, str]
) -> None:
    before = node(gaia, "a")
    assert before is not None
    thing = held_by(gaia, "a")
    running = gaia.submit(Hold(*marks))
    gaia.submit(DropThing(thing)).get(timeout=20)
    assert gaia.submit(GROW).get(timeout=20).text == str(bounded.process.pid)
    until(lambda: "shutting down" in bounded.text() or node(gaia, "a") is None)
    later = gaia.submit(Echo("after"))
    Path(marks[1]).touch()
    assert running.get(timeout=20).text == "released"
    after = until(lambda: (found := node(gaia, "a")) and found.boot != before.boot and found)
    assert (after.name, after.pid) == (before.name, bounded.process.pid)
    assert later.get(timeout=20).text == "after"
    with pytest.raises(errors.HolderLost):
        gaia.submit(AskThing(thing))
    assert resident(bounded.process.pid) < BOUND_BYTES
    assert bounded.text().count(" ready.") == 2
    # The bound is passed again at once: it works on, and says that the bound may be too low.
    gaia.submit(GROW).get(timeout=20)
    until(lambda: "soon after a renewal" in bounded.text())
    assert gaia.submit(Echo("still there")).get(timeout=20).text == "still there"
    assert node(gaia, "a").boot == after.boot
    assert cluster.stop(bounded.process) == 0


def test_what_a_worker_holds_may_end_before_it_is_renewed(
    gaia: Gaia, bounded: cluster.Worker, client: redis.Redis
) -> None:
    before = node(gaia, "a")
    thing = held_by(gaia, "a")
    gaia.submit(GROW).get(timeout=20)
    until(lambda: "the worker is renewed" in bounded.text())

    def shared_queue_is_left() -> bool:
        gaia.submit(Echo("for the next boot"))
        return client.llen("probe") > 0

    until(shared_queue_is_left)
    assert gaia.submit(AskThing(thing)).get(timeout=20).text == str(bounded.process.pid)
    assert node(gaia, "a").boot == before.boot
    assert gaia.submit(DropThing(thing)).get(timeout=20).text == "dropped"
    until(lambda: (found := node(gaia, "a")) and found.boot != before.boot)
    until(lambda: client.llen("probe") == 0)


def test_a_signal_that_ends_a_worker_under_renewal_wins(gaia: Gaia, bounded: cluster.Worker) -> None:
    held_by(gaia, "a")
    gaia.submit(GROW).get(timeout=20)
    until(lambda: "the worker is renewed" in bounded.text())
    assert cluster.stop(bounded.process) == 0
    assert bounded.text().count(" ready.") == 1


def test_a_bound_that_no_worker_keeps_stops_the_boot(fresh_url: str) -> None:
    done = subprocess.run(
        [cluster.GAIA, "worker", "api"],
        env={**cluster.clean_environ(), "GAIA_REDIS_URL": fresh_url, "GAIA_WORKER__MEMORY_BYTES": "1000"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "GAIA_WORKER__MEMORY_BYTES: 1000 is less than the" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT], ids=str)
def test_every_signal_that_asks_for_the_end_ends_a_worker_within_its_grace(
    fresh_url: str, gaia: Gaia, tmp_path: Path, marks: tuple[str, str], client: redis.Redis, signum: signal.Signals
) -> None:
    log = tmp_path / "a.log"
    with cluster.executed_probe_worker(fresh_url, log=log, name="a", GAIA_WORKER__GRACE_S="0.5") as worker:
        gaia.submit(Hold(*marks))
        until(Path(marks[0]).exists)
        for _ in range(2):
            worker.process.send_signal(signum)
        assert worker.process.wait(20) == 0
        assert client.llen("probe") == 1
    assert gaia.nodes() == []


def test_a_hangup_that_was_ignored_from_the_start_stays_so(fresh_url: str, gaia: Gaia, tmp_path: Path) -> None:
    argv = ["nohup", sys.executable, "-m", "tests.support.probe_worker"]
    found = cluster.executed(argv, {"GAIA_REDIS_URL": fresh_url}, tmp_path / "a.log")
    try:
        found.wait_ready()
        found.process.send_signal(signal.SIGHUP)
        assert gaia.submit(Echo("still there")).get(timeout=20).text == "still there"
        assert found.process.poll() is None
    finally:
        assert cluster.stop(found.process) == 0


def test_a_service_that_cannot_be_closed_does_not_hold_up_the_end(fresh_url: str, gaia: Gaia, tmp_path: Path) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "a.log", name="a", GAIA_WORKER__GRACE_S="0.5") as worker:
        gaia.submit(Stick()).get(timeout=20)
        assert cluster.stop(worker.process, timeout_s=15) == 1
        assert "calls or services are stuck" in worker.text()


def test_a_worker_under_celerys_command_is_a_node_without_a_memory_bound(
    fresh_url: str, gaia: Gaia, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "celery", "-A", "tasks.app", "worker", "-Q", "api", "-n", "stock@%h"]
    environ = {"GAIA_REDIS_URL": fresh_url, "GAIA_WORKER__MEMORY_BYTES": "1000", "GAIA_WORKER__CONCURRENCY": "7"}
    found = cluster.executed(argv, environ, tmp_path / "stock.log")
    try:
        found.wait_ready()
        (listed,) = gaia.nodes()
        assert (listed.pid, listed.queues, listed.concurrency) == (found.process.pid, ("api",), 7)
    finally:
        cluster.stop(found.process)
    assert gaia.nodes() == []


def resident(pid: int) -> int:
    return psutil.Process(pid).memory_info().rss

"""Limits of the whole cluster: real processes, a real server, one of them killed, the server restarted or away."""

import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from config import settings
from gaia import Gaia
from gaia.errors import CircuitOpen, LimitExceeded, Unreachable
from gaia.store import keys
from tasks.cli.server import free_port
from tasks.limits.cluster import Limits
from tasks.limits.policy import levels
from tasks.limits.protocols import Admitted, Away, Refused
from tasks.scope import Scope
from tests.support import cluster
from tests.support.limits_cluster import admissions, hammering, kill, over_since
from tests.support.limits_process import HOST
from tests.support.waiting import until

RATE, BURST = 400, 200


@pytest.fixture
def limits(fresh_url: str) -> Iterator[Limits]:
    found = Limits.in_redis(fresh_url, settings.Limits())
    yield found
    found.close()


def test_eight_processes_and_one_killed_stay_within_the_bound(fresh_url: str, tmp_path: Path) -> None:
    with Gaia(fresh_url) as gaia:
        gaia.limits.set(HOST, rate_per_s=RATE, burst=BURST)
    with hammering("rate", fresh_url, tmp_path, 3) as running:
        until(lambda: sum(each.stat().st_size > 0 for each in tmp_path.iterdir()) == len(running), what="first words")
        until(lambda: len(admissions(tmp_path)[1]) > BURST + RATE / 2, what="some admissions")
        kill(running[3])
        for each in running:
            each.wait(60)
    start, times = admissions(tmp_path)
    assert over_since(start, times, RATE, BURST) <= 0
    assert len(times) > BURST + RATE


def test_a_half_open_circuit_lets_one_probe_of_eight_processes_through(fresh_url: str, tmp_path: Path) -> None:
    with Gaia(fresh_url) as gaia:
        gaia.limits.set(HOST, open_s=0.5, failure_threshold=1)
    with hammering("probes", fresh_url, tmp_path, 4) as running:
        for each in running:
            each.wait(60)
    lines = sorted(line.split(" ") for each in tmp_path.iterdir() for line in each.read_text().splitlines())
    probes = [float(at) for at, probe in lines if probe]
    assert len(probes) >= 2
    assert all(later - earlier >= 0.49 for earlier, later in itertools.pairwise(probes))


def test_a_thousand_admissions_cost_less_than_a_hundred_calls(limits: Limits, fresh_url: str) -> None:
    scope = Scope.lasting(60)
    with redis.Redis.from_url(fresh_url) as client:
        limits.admit(scope, levels(host=HOST), if_away=Away.FAIL_CLOSED)
        client.config_resetstat()
        before = _scripts(client)
        for _ in range(1000):
            limits.admit(scope, levels(host=HOST), if_away=Away.FAIL_CLOSED)
        assert _scripts(client) - before <= 100


def _scripts(client: "redis.Redis") -> int:
    found = client.info("commandstats")
    return sum(int(each["calls"]) for name, each in found.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))


def test_what_is_set_is_in_force_in_running_processes(limits: Limits, fresh_url: str) -> None:
    names = levels(host=HOST)
    assert isinstance(limits.ask(names, if_away=Away.FAIL_CLOSED), Admitted)
    with Gaia(fresh_url) as gaia:
        gaia.limits.set(HOST, rate_per_s=0.01, burst=1)
        until(lambda: len(limits.policy.rates(names)) == 2, what="the new policy")
        assert isinstance(limits.ask(names, if_away=Away.FAIL_CLOSED), Admitted)
        assert isinstance(limits.ask(names, if_away=Away.FAIL_CLOSED), Refused)
        with pytest.raises(LimitExceeded):
            limits.admit(Scope.lasting(60), names, if_away=Away.FAIL_CLOSED)
        gaia.limits.reset(HOST)
        until(lambda: len(limits.policy.rates(names)) == 1, what="the old policy")
        assert isinstance(limits.ask(names, if_away=Away.FAIL_CLOSED), Admitted)


def test_a_change_without_an_announcement_is_found_all_the_same(limits: Limits, fresh_url: str) -> None:
    names = levels(host=HOST)
    assert len(limits.policy.rates(names)) == 1
    with redis.Redis.from_url(fresh_url) as client, client.pipeline() as pipe:
        pipe.hset(keys.LIMIT_SETTINGS, HOST, '{"rate_per_s": 5}')
        pipe.hincrby(keys.LIMIT_SETTINGS, "#revision", 1)
        pipe.execute()
    until(lambda: len(limits.policy.rates(names)) == 2, what="the new policy")


def test_the_slots_of_a_killed_process_are_back_after_their_time(fresh_url: str, limits: Limits) -> None:
    with Gaia(fresh_url) as gaia:
        gaia.limits.set("pool:x", concurrency=1)
    names = levels(within="pool:x")
    code = (
        "import sys, threading; from config import settings; from tasks.limits.cluster import *; "
        "from tasks.limits.policy import levels\n"
        "limits = Limits.in_redis(sys.argv[1], settings.Limits())\n"
        "with limits.holding(Scope.lasting(60), levels(within='pool:x'), ttl_s=1.0, if_away=Away.FAIL_CLOSED):\n"
        "    print('held', flush=True); threading.Event().wait(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, fresh_url], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        until(lambda: limits.policy.slots(names), what="the policy")
        for _ in range(3):  # it is renewed while its holder lives
            threading.Event().wait(0.5)
            with pytest.raises(LimitExceeded), limits.holding(Scope.lasting(60), names, if_away=Away.FAIL_CLOSED):
                pass
    finally:
        kill(holder)
        holder.stdout.close() if holder.stdout else None

    def acquired() -> bool:
        try:
            with limits.holding(Scope.lasting(60), names, if_away=Away.FAIL_CLOSED):
                return True
        except LimitExceeded:
            return False

    until(acquired, 10, what="a free slot")


@pytest.fixture(params=["refused", "silent"])
def away(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that nobody listens at, or one whose owner never says a word."""
    if request.param == "refused":
        yield free_port("127.0.0.1")
        return
    with socket.create_server(("127.0.0.1", 0), backlog=512) as silent:
        yield silent.getsockname()[1]


def test_with_redis_away_the_choice_made_is_what_happens(away: int) -> None:
    limits = Limits.in_redis(f"redis://127.0.0.1:{away}/0", settings.Limits())
    try:
        scope, names = Scope.lasting(60), levels(host=HOST)
        for _ in range(1000):
            limits.admit(scope, names, if_away=Away.FAIL_OPEN)
        with pytest.raises(Unreachable):
            limits.admit(scope, names, if_away=Away.FAIL_CLOSED)
        with pytest.raises(Unreachable), limits.trying(HOST, if_away=Away.FAIL_CLOSED):
            pass
        with limits.trying(HOST, if_away=Away.FAIL_OPEN):
            pass
    finally:
        limits.close()


def test_limits_and_what_was_used_of_them_survive_a_restart_of_redis(tmp_path: Path) -> None:
    with cluster.server(tmp_path) as server:
        limits = Limits.in_redis(server.url, settings.Limits())
        try:
            with Gaia(server.url) as gaia:
                gaia.limits.set(HOST, rate_per_s=0.01, burst=1, failure_threshold=1, open_s=600)
                names = levels(host=HOST)
                assert isinstance(limits.ask(names, if_away=Away.FAIL_CLOSED), Admitted)
                limits.failed(limits.enter(HOST, if_away=Away.FAIL_CLOSED))
                server.stop()
                server.start()
                assert gaia.limits.get(HOST) is not None
            fresh = Limits.in_redis(server.url, settings.Limits())
            try:
                assert isinstance(fresh.ask(names, if_away=Away.FAIL_CLOSED), Refused)
                with pytest.raises(CircuitOpen):
                    fresh.enter(HOST, if_away=Away.FAIL_CLOSED)
            finally:
                fresh.close()
            # The script cache is gone, and so is a moment of Redis: the old process finds back by itself.
            until(lambda: isinstance(_asked(limits, names), Refused), what="an answer of the new server")
        finally:
            limits.close()


def _asked(limits: Limits, names: tuple[str, ...]) -> Admitted | Refused | None:
    try:
        return limits.ask(names, if_away=Away.FAIL_CLOSED)
    except Unreachable:
        return None

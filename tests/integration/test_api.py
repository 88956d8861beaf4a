"""Requests through the queue: real workers, limits that hold in all of them, and Redis restarting or away."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gaia import Gaia
from gaia.contracts import api
from gaia.errors import CircuitOpen, EgressDenied, LimitExceeded
from tests.support import cluster
from tests.support.cluster import Server
from tests.support.waiting import until
from tests.support.web import Asked, Site, reply

ONCE = api.Retry(attempts=1)
BODY = bytes(range(256)) * 2000


@contextmanager
def worker(url: str, site: Site, log: Path) -> Iterator[cluster.Worker]:
    """Run a worker of the api queue that reaches a site and nothing else inside."""
    environ = {"GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"])}
    with cluster.worker(url, "api", log=log, **environ) as found:
        yield found


def kept_out(gaia: Gaia, site: Site, path: str = "/a", many: int = 3) -> int:
    """Send a batch that may last for half a second; give how many a limit kept out."""
    calls = (api.Request(url=site.url(path), retry=ONCE),) * many
    found = gaia.submit(api.RequestMany(calls), deadline=1.0, expires=30).get(timeout=60)
    return sum(isinstance(each.error, LimitExceeded) for each in found.items)


def test_requests_batches_and_downloads_go_through_the_queue(
    fresh_url: str, gaia: Gaia, site: Site, tmp_path: Path
) -> None:
    site.routes |= {"/a": reply(b"one"), "/many": lambda asked, _: reply(asked.target.encode()), "/file": reply(BODY)}
    with Gaia(fresh_url) as g, worker(fresh_url, site, tmp_path / "worker.log"):
        single = g.submit(api.Request(url=site.url("/a")))
        calls = tuple(api.Request(url=site.url(f"/many?{number}")) for number in range(1000))
        batch = g.submit(
            api.RequestMany((*calls[:-1], api.Request(url="http://10.0.0.1/", retry=ONCE)), concurrency=50)
        )
        kept = g.submit(api.Download(url=site.url("/file"), sha256=hashlib.sha256(BODY).hexdigest()))
        assert single.get(timeout=60).body == b"one"
        *good, bad = batch.get(timeout=60).items
        assert [each.unwrap().body for each in good] == [f"/many?{number}".encode() for number in range(999)]
        assert isinstance(bad.error, EgressDenied)
        with g.open(kept.get(timeout=60).artifact) as file:
            assert file.read() == BODY
        stats = g.submit(api.Stats()).get(timeout=60)
        assert (stats.requests, stats.succeeded) == (1001, 1001)
        assert g.submit(api.Health()).get(timeout=60).status in {"healthy", "degraded"}


def test_a_worker_that_is_ready_has_loaded_what_its_queue_needs_and_nothing_of_others(
    fresh_url: str, tmp_path: Path
) -> None:
    argv = [cluster.GAIA, "worker", "api"]
    found = cluster.executed(argv, {"GAIA_REDIS_URL": fresh_url}, tmp_path / "worker.log")
    try:
        mapped = Path(f"/proc/{found.wait_ready().process.pid}/maps").read_text()
    finally:
        cluster.stop(found.process)
    assert ("pycurl" in mapped, "lxml" in mapped) == (True, False)


def test_limits_that_are_set_hold_in_all_running_workers_and_in_those_that_start_later(
    fresh_url: str, site: Site, tmp_path: Path
) -> None:
    site.routes["/a"] = reply()
    with Gaia(fresh_url) as gaia, ExitStack() as stack:
        running = [stack.enter_context(worker(fresh_url, site, tmp_path / f"{number}.log")) for number in range(2)]
        assert kept_out(gaia, site) == 0
        gaia.limits.set("127.0.0.1", rate_per_s=0.001, burst=1)
        until(lambda: kept_out(gaia, site) == 3, 30, what="the limit in force")

        def limited() -> set[str]:
            told = [gaia.submit(api.Stats()).get(timeout=60) for _ in range(4)]
            kept_out(gaia, site)
            return {each.worker for each in told if each.limited}

        seen: set[str] = set()
        until(lambda: len(seen.update(limited()) or seen) == 2, 60, what="a refusal by each worker")
        for each in running:
            cluster.stop(each.process)
        with worker(fresh_url, site, tmp_path / "later.log"):
            assert kept_out(gaia, site) == 3
            gaia.limits.reset("127.0.0.1")
            until(lambda: kept_out(gaia, site) == 0, 30, what="the limit lifted")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with cluster.server(tmp_path / "valkey") as found:
        yield found


def test_limits_and_what_was_used_of_them_survive_a_restart_of_the_server(
    server: Server, site: Site, tmp_path: Path
) -> None:
    site.routes |= {"/a": reply(), "/bad": reply(b"", 500)}
    with Gaia(server.url) as gaia, worker(server.url, site, tmp_path / "worker.log"):
        gaia.limits.set("127.0.0.1", rate_per_s=0.001, burst=2, failure_threshold=1, open_s=600)
        until(lambda: kept_out(gaia, site) == 3, 30, what="a rate that is used up")
        asked = len(site.asked)
        server.stop()
        server.start()
        gaia.submit(api.Stats()).get(timeout=60)  # the worker is back
        assert kept_out(gaia, site) == 3
        assert gaia.limits.get("127.0.0.1") is not None
        assert len(site.asked) == asked


def test_a_circuit_that_is_open_stays_open_over_a_restart_of_the_server(
    server: Server, site: Site, tmp_path: Path
) -> None:
    site.routes |= {"/a": reply(), "/bad": reply(b"", 500)}
    with Gaia(server.url) as gaia, worker(server.url, site, tmp_path / "worker.log"):
        gaia.limits.set("127.0.0.1", failure_threshold=1, open_s=600)
        assert gaia.submit(api.Request(url=site.url("/bad"), retry=ONCE)).get(timeout=60).status == 500
        server.stop()
        server.start()
        gaia.submit(api.Stats()).get(timeout=60)  # the worker is back
        with pytest.raises(CircuitOpen):
            gaia.submit(api.Request(url=site.url("/a"), retry=ONCE), deadline=2, expires=30).get(timeout=60)
        assert [each.target for each in site.asked] == ["/bad"]


@pytest.mark.parametrize(("away", "back"), [(Server.stop, Server.start), (Server.hang, Server.go_on)])
def test_a_request_under_way_as_the_server_goes_away_or_hangs_ends_well_and_its_hop_asks_nobody(
    server: Server, site: Site, tmp_path: Path, away: Callable[[Server], None], back: Callable[[Server], None]
) -> None:
    def leave(asked: Asked, _: object) -> bytes:
        away(server)
        return reply(b"", 302, "Location: /b")

    def come_back(asked: Asked, _: object) -> bytes:
        back(server)
        return reply(b"here")

    site.routes |= {"/a": leave, "/b": come_back}
    with Gaia(server.url) as gaia, worker(server.url, site, tmp_path / "worker.log"):
        gaia.limits.set("127.0.0.1", rate_per_s=1000, burst=1000, concurrency=10, bytes_per_s=1e9)
        for call in (
            api.Request(url=site.url("/a"), retry=ONCE),
            api.RequestMany((api.Request(url=site.url("/a"), retry=ONCE),)),
        ):
            found = gaia.submit(call, deadline=60).get(timeout=90)
            answer = found if isinstance(found, api.Response) else found.items[0].unwrap()
            assert (answer.status, answer.body) == (200, b"here")


def test_the_slot_of_a_killed_worker_is_free_again_and_its_call_is_done_by_another(
    fresh_url: str, site: Site, tmp_path: Path
) -> None:
    def hold(asked: Asked, _: object) -> bytes | None:
        if len(site.asked) > 1:
            return reply(b"done")
        site.stopped.wait(60)
        return None

    site.routes["/a"] = hold
    with Gaia(fresh_url) as gaia:
        gaia.limits.set("127.0.0.1", concurrency=1)
        with worker(fresh_url, site, tmp_path / "doomed.log") as doomed:
            pending = gaia.submit(api.Request(url=site.url("/a"), timeout_s=50), deadline=120)
            until(lambda: site.asked, what="the request")
            doomed.process.kill()
            doomed.process.wait(10)
        with worker(fresh_url, site, tmp_path / "heir.log"):
            assert pending.get(timeout=100).body == b"done"

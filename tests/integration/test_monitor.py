"""`gaia monitor` beside real workers, stock ones too."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from gaia import Gaia, files
from gaia.errors import GaiaError
from gaia.store.nodes import Node, beat
from tasks.runtime.tokens import derived
from tests.support import cluster
from tests.support.cluster import get
from tests.support.probe import AskThing, Deafen, Echo, Fail, Flaky, Hold, HoldThing, Snooze
from tests.support.waiting import until
from tests.support.web import Site

THEIRS = {
    *(
        f"celery_task_{state}"
        for state in ("received", "started", "succeeded", "failed", "rejected", "revoked", "retried")
    ),
    *("celery_worker_up", "celery_worker_tasks_active", "celery_task_runtime", "celery_task_queue_wait_time"),
    *(
        "celery_queue_length",
        "celery_active_consumer_count",
        "celery_active_worker_count",
        "celery_active_process_count",
    ),
}
"""What danihodovic's celery-exporter shows; `celery_task_sent` once somebody sends that event."""

LABELS = {"name", "hostname", "queue_name"}


class Page:
    """A running `gaia monitor`."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self.log = process, log
        self.url = ""

    def wait(self) -> "Page":
        until(lambda: self.process.poll() is not None or " at http" in self.log.read_text(), 60, what="the monitor")
        found = re.search(r" at (http://\S+)/", self.log.read_text())
        assert found, self.log.read_text()
        self.url = found[1]
        return self

    def value(self, name: str, /, **labels: str) -> float:
        return sum(
            each.value
            for family in text_string_to_metric_families(get(f"{self.url}/metrics")[1])
            for each in family.samples
            if each.name == name and labels.items() <= each.labels.items()
        )

    def verdict(self, page: str) -> tuple[int, list[str]]:
        code, text = get(self.url + page)
        return code, json.loads(text)["reasons"]


Start = Callable[..., Page]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    pages: list[Page] = []

    def begin(url: str, **settings: str) -> Page:
        log = tmp_path / f"monitor-{len(pages)}.log"
        environ = {**cluster.clean_environ(), "GAIA_REDIS_URL": url, "GAIA_MONITOR__PORT": "0", **settings}
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.cli.main", "monitor"], env=environ, stdout=out, stderr=out
            )
        pages.append(Page(process, log))
        return pages[-1].wait()

    yield begin
    for each in pages:
        assert cluster.stop(each.process) == 0
        assert "Traceback" not in each.log.read_text()


def test_two_workers_of_a_machine_are_two_and_their_calls_are_told_apart(
    fresh_url: str, tmp_path: Path, start: Start
) -> None:
    page = start(fresh_url)
    with (
        cluster.probe_worker(fresh_url, log=tmp_path / "a", name="a"),
        cluster.probe_worker(fresh_url, log=tmp_path / "b", name="b") as second,
        Gaia(fresh_url) as g,
    ):
        until(lambda: page.value("celery_worker_up") == 2)
        thing = g.submit(HoldThing()).get(timeout=30).text
        for led in [g.submit(AskThing(thing)) for _ in range(20)] + [g.submit(Snooze(str(tmp_path / "marks"), 3))]:
            led.get(timeout=30)
        calls = [g.submit(Echo(str(number))) for number in range(40)]
        calls += [g.submit(Flaky(2)), g.submit(Fail("hunter2222"))]
        for each in calls[:-1]:
            each.get(timeout=30)
        with pytest.raises(GaiaError):
            calls[-1].get(timeout=30)
        until(lambda: page.value("celery_task_succeeded_total", name="probe.echo") == 40)
        until(lambda: page.value("celery_task_retried_total", name="probe.flaky") == 1)
        until(lambda: page.value("celery_task_failed_total", exception="InternalError") == 1)
        assert page.value("celery_task_runtime_count", name="probe.fail", outcome="failed") == 1
        assert page.value("celery_task_queue_wait_time_count", name="probe.echo") == 40
        for name, count in {"flaky": 1, "snooze": 1, "ask_thing": 20}.items():
            assert page.value("celery_task_queue_wait_time_count", name=f"probe.{name}") == count
        families = {each.name: each for each in text_string_to_metric_families(get(f"{page.url}/metrics")[1])}
        assert families.keys() >= THEIRS
        assert families["celery_task_failed"].samples[0].labels.keys() >= LABELS | {"exception"}
        assert families["celery_task_runtime"].samples[0].labels.keys() >= LABELS
        assert "hunter2222" not in get(f"{page.url}/metrics")[1]
        until(lambda: page.verdict("/readiness") == (200, []))
        second.process.kill()
        until(lambda: page.value("celery_active_worker_count", queue_name="probe") == 1, 30)


def test_the_address_that_is_printed_names_the_pages(fresh_url: str, start: Start) -> None:
    page = start(fresh_url, GAIA_MONITOR__TOKEN="0123456789abcdef")
    code, text = get(f"{page.url}/")
    assert code == 200
    for name in ("/metrics", "/targets", "/workers", "/health", "/readiness", "/dashboard", "/debug/pprof/"):
        assert f"\n{name}" in text


def test_a_scrape_asks_neither_redis_nor_a_worker(fresh_url: str, tmp_path: Path, start: Start) -> None:
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"), redis.Redis.from_url(fresh_url) as client:
        page = start(fresh_url, GAIA_MONITOR__SAMPLE_S="60")
        until(lambda: page.value("celery_worker_up") == 1)
        with client.pubsub() as pubsub:
            pubsub.psubscribe("*pidbox*")
            until(lambda: pubsub.get_message(timeout=0.1))
            before = calls(client)
            for _ in range(50):
                assert get(f"{page.url}/metrics")[0] == 200
            assert calls(client) == before
            assert pubsub.get_message(timeout=0.5) is None


def calls(client: "redis.Redis") -> dict[str, int]:
    """How often the server was asked what a sample asks; workers send turns and heartbeats all the time."""
    found = client.info("commandstats")
    assert isinstance(found, dict)
    return {name: found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("llen", "hvals", "lindex")}


def test_a_worker_whose_consumer_is_dead_makes_its_subsystem_unready(
    fresh_url: str, tmp_path: Path, start: Start
) -> None:
    page = start(fresh_url)
    until(lambda: page.verdict("/readiness") == (503, ["no worker lives"]))
    with cluster.probe_worker(fresh_url, log=tmp_path / "log"), Gaia(fresh_url) as g:
        until(lambda: page.verdict("/readiness") == (200, []))
        assert page.verdict("/health") == (200, [])
        g.submit(Deafen()).get(timeout=30)
        until(lambda: page.verdict("/readiness") == (503, ["probe: no worker consumes"]), 40)
        status, reasons = page.verdict("/health/probe")
        assert status == 503
        assert "nothing was fetched or waited for" in reasons[0]
        assert page.value("gaia_node_ready") == 0
        assert page.value("celery_worker_up") == 1
    until(lambda: page.verdict("/health/probe") == (503, ["no worker serves it"]), 40)
    assert get(f"{page.url}/health/none")[0] == 404


def test_calls_that_nobody_takes_are_told_by_length_age_and_health(
    fresh_url: str, start: Start, marks: tuple[str, str]
) -> None:
    page = start(fresh_url, GAIA_MONITOR__QUEUES='["probe"]')
    with Gaia(fresh_url) as g:
        g.submit(files.Read("data:x"))
        g.submit(files.Read("data:x"), priority=9)
        g.submit(Hold(*marks))
        for queue, length in {"files": 2, "probe": 1}.items():
            until(lambda queue=queue, length=length: page.value("celery_queue_length", queue_name=queue) == length)
            until(lambda queue=queue: page.value("celery_queue_oldest_task_age_seconds", queue_name=queue) > 1)
    assert page.verdict("/health/files") == (503, ["no worker serves it"])
    # A queue that no worker of ours was ever seen to serve may be somebody else's.
    assert get(f"{page.url}/health/probe")[0] == 404


def test_prometheus_finds_each_worker_and_reads_it_through_the_monitor(
    fresh_url: str, tmp_path: Path, start: Start
) -> None:
    page = start(fresh_url)
    with cluster.probe_worker(fresh_url, log=tmp_path / "log", name="p"):
        (target,) = until(lambda: json.loads(get(f"{page.url}/targets")[1]))
        labels = target["labels"]
        assert (labels["queues"], labels["instance"]) == ("probe", labels["worker"])
        assert target["targets"] == [page.url.removeprefix("http://")]
        assert "gaia_worker_ready 1.0" in get(page.url + labels["__metrics_path__"])[1]
        node = quote(labels["worker"], safe="")
        assert get(f"{page.url}/workers/{node}/readiness")[0] == 200
        assert get(f"{page.url}/workers/{node}/health/probe")[0] == 200
        for path in ("none", "../metrics", "health/../metrics", ""):
            assert get(f"{page.url}/workers/{node}/{path}")[0] == 404
        assert get(f"{page.url}/workers/none@vm/metrics")[0] == 404
        (row,) = until(lambda: [each for each in json.loads(get(f"{page.url}/workers")[1]) if each["ready"]])
        assert row["status"] == "healthy"


def test_a_token_guards_the_monitor_and_the_workers(fresh_url: str, tmp_path: Path, start: Start) -> None:
    token = "0123456789abcdef-token"
    page = start(fresh_url, GAIA_MONITOR__TOKEN=token, GAIA_MONITOR__HOST="0.0.0.0")  # noqa: S104 - as in a container
    bearer = {"Authorization": f"Bearer {token}"}
    with cluster.probe_worker(fresh_url, log=tmp_path / "log", GAIA_MONITOR__TOKEN=token):
        until(lambda: page.verdict("/readiness") == (200, []))
        assert get(f"{page.url}/metrics")[0] == 401
        (target,) = until(lambda: json.loads(get(f"{page.url}/targets", **bearer)[1]))
        assert get(page.url + target["labels"]["__metrics_path__"], **bearer)[0] == 200
        (target,) = json.loads(get(f"{page.url}/targets", Host="monitor:9808", **bearer)[1])
        assert target["targets"] == ["monitor:9808"]
        where = cluster.endpoint(fresh_url)
        assert get(f"{where}/metrics")[0] == 401
        for given, status in ((token, 200), (derived(token, where), 200), (derived(token, f"{where}0"), 401)):
            assert get(f"{where}/metrics", Authorization=f"Bearer {given}")[0] == status
        assert get(f"{page.url}/metrics", Authorization=f"Bearer {derived(token, where)}")[0] == 401
        assert token not in page.log.read_text()


@pytest.fixture
def hung(site: Site) -> Iterator[Site]:
    """A site that takes every question a worker is asked, and answers none."""
    release = threading.Event()
    paths = ("/readiness", "/health", "/metrics", "/debug/pprof/profile", "/debug/pprof/threads")
    site.routes |= dict.fromkeys(paths, lambda *_: release.wait(120) and None)
    yield site
    release.set()


def known(page: Page, url: str, nodes: list[Node], **bearer: str) -> bool:
    """Tell Redis of nodes that are none; say whether the monitor has heard of all."""
    with redis.Redis.from_url(url) as client:
        for each in nodes:
            beat(client, each)
    return len(json.loads(get(f"{page.url}/workers", **bearer)[1])) == len(nodes)


def like(site: Site, name: str) -> Node:
    return Node(name, "b" * 16, 1, socket.gethostname(), ("api",), 1, "0.1.0", time.time(), endpoint=site.url(""))


def test_workers_that_hang_take_no_place_from_probes_and_from_the_monitors_own_pages(
    fresh_url: str, start: Start, hung: Site
) -> None:
    page = start(fresh_url)
    nodes = [like(hung, f"{number}@hung") for number in range(40)]
    until(lambda: known(page, fresh_url, nodes), 40)
    with ThreadPoolExecutor(len(nodes)) as pool:
        scrapes = [pool.submit(get, f"{page.url}/workers/{each.name}/metrics") for each in nodes]
        until(lambda: any(each.target == "/metrics" for each in hung.asked))
        for path in ("/liveness", "/metrics", "/targets"):
            assert get(page.url + path)[0] == 200
        assert get(f"{page.url}/health")[0] in {200, 503}
        assert {each.result()[0] for each in scrapes} <= {502, 503}


def test_it_stops_while_a_profile_is_being_taken(fresh_url: str, start: Start, hung: Site) -> None:
    token = "0123456789abcdef-token"
    bearer = {"Authorization": f"Bearer {token}"}
    page = start(fresh_url, GAIA_MONITOR__TOKEN=token)
    until(lambda: known(page, fresh_url, [like(hung, "h@hung")], **bearer), 40)
    asked = f"{page.url}/debug/pprof/profile?worker=h@hung&seconds=250"
    with ThreadPoolExecutor(1) as pool:
        profile = pool.submit(get, asked, **bearer)
        until(lambda: not profile.done() and any("pprof" in each.target for each in hung.asked))
        page.process.terminate()
        assert page.process.wait(30) == 0
        assert isinstance(profile.exception(), OSError)


def test_without_redis_it_serves_and_says_so(start: Start, tmp_path: Path) -> None:
    with cluster.valkey(tmp_path / "valkey") as url:
        page = start(url)
        until(lambda: page.value("gaia_redis_up") == 1)
    until(lambda: page.verdict("/health")[0] == 503, 40)
    assert "Redis has not answered" in page.verdict("/health")[1][0]
    assert page.value("gaia_redis_up") == 0
    assert page.verdict("/liveness") == (200, [])


def test_a_stock_worker_shows_too(fresh_url: str, tmp_path: Path, start: Start) -> None:
    page = start(fresh_url, GAIA_MONITOR__QUEUES='["celery"]')
    (tmp_path / "stock.py").write_text(
        "from celery import Celery\napp = Celery('stock')\n@app.task\ndef add(x): return x\n"
    )
    celery = str(Path(sys.executable).with_name("celery"))
    argv = [celery, "-A", "stock", "-b", fresh_url, "worker", "-P", "solo", "-E", "-n", "stock@%h"]
    with (tmp_path / "log").open("wb") as out:
        worker = subprocess.Popen(argv, cwd=tmp_path, env=cluster.clean_environ(), stdout=out, stderr=out)
    try:
        with Celery("sender", broker=fresh_url, set_as_current=False) as sender:
            sender.conf.task_send_sent_event = True
            until(lambda: page.value("celery_worker_up") == 1, 60)
            # Whether somebody serves that queue nobody knows, so it is not missed.
            assert 'celery_active_worker_count{queue_name="celery"}' not in get(f"{page.url}/metrics")[1]
            for number in range(3):
                sender.send_task("stock.add", args=(number,), countdown=2)  # its event is heard before its start
            until(lambda: page.value("celery_task_succeeded_total", name="stock.add", queue_name="celery") == 3, 30)
            assert page.value("celery_task_sent_total", name="stock.add", worker="") == 3
            assert page.value("celery_task_queue_wait_time_count", name="stock.add") == 3
    finally:
        cluster.stop(worker)


def test_a_taken_port_is_named_with_the_mend(fresh_url: str, start: Start) -> None:
    page = start(fresh_url)
    port = page.url.rpartition(":")[2]
    environ = {**cluster.clean_environ(), "GAIA_REDIS_URL": fresh_url, "GAIA_MONITOR__PORT": port}
    command = [sys.executable, "-P", "-m", "tasks.cli.main", "monitor"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "choose another with GAIA_MONITOR__PORT" in ended.stderr

"""Browser sessions through the queue: their calls find them, and nothing survives their worker."""

import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from gaia import Gaia, browser
from gaia.errors import EgressDenied, HolderLost, PageTimedOut, SessionMissing, picture_of
from tests.support.cluster import Worker, worker
from tests.support.dns import NameServer
from tests.support.waiting import until
from tests.support.web import Site, reply

HTML = "Content-Type: text/html"
PUBLIC = "of the outside"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where profiles go; it is left empty."""
    found = Path(tempfile.mkdtemp())
    found.chmod(0o711)
    yield found
    found.rmdir()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as found:
        found.routes["/"] = reply(b"<title>There</title><p>x", 200, HTML)
        yield found


def of_profile(folder: Path) -> list[int]:
    """Give the processes that know of a profile in the folder."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in each.cmdline()):
                found.append(each.pid)
        except psutil.Error:
            continue
    return found


def test_a_session_is_found_by_its_calls_and_ends_with_its_worker(
    fresh_url: str, folder: Path, site: Site, tmp_path: Path
) -> None:
    variables = {"TMPDIR": str(folder), "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"])}
    # Another worker answers what lies on the queue of one that has gone.
    with worker(fresh_url, "network", log=tmp_path / "other.log"), Gaia(fresh_url) as gaia:
        for ending in (signal.SIGKILL, signal.SIGTERM):
            log = tmp_path / f"{ending.name}.log"
            with worker(fresh_url, "browser", log=log, **variables) as running:
                session = gaia.submit(browser.Open()).get(timeout=60).id
                seen = gaia.submit(browser.Navigate(session, site.url())).get(timeout=60)
                assert (seen.title, seen.status) == ("There", 200)
                with pytest.raises(PageTimedOut) as late:
                    gaia.submit(browser.Navigate(session, site.url(), wait_for="#no", timeout_s=1)).get(timeout=60)
                picture = picture_of(late.value)
                assert picture is not None
                with gaia.open(picture) as file:
                    assert file.read(3) == b"\xff\xd8\xff"
                assert of_profile(folder)
                os.kill(running.process.pid, ending)
                until(lambda: not of_profile(folder), 5 if ending == signal.SIGKILL else 30, what="Chromium's end")
                until(lambda: not list(folder.iterdir()), what="the end of its profile")
                running.process.wait(30)
            with pytest.raises(HolderLost):
                gaia.submit(browser.Status(session)).get(timeout=60)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8081/", "http://169.254.169.254/", "http://localhost/"])
def test_a_page_of_the_inside_is_refused(fresh_url: str, folder: Path, site: Site, tmp_path: Path, url: str) -> None:
    site.routes["/"] = reply(f"<p id=p>x<script>fetch('{url}').catch(() => p.id = 'no')</script>".encode(), 200, HTML)
    variables = {"TMPDIR": str(folder), "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"])}
    with worker(fresh_url, "browser", log=tmp_path / "log", **variables), Gaia(fresh_url) as gaia:
        with pytest.raises(EgressDenied):
            gaia.submit(browser.Capture(url=url)).get(timeout=60)
        gaia.submit(browser.Capture(url=site.url(), wait_for="#no")).get(timeout=60)
        session = gaia.submit(browser.Open()).get(timeout=60).id
        gaia.submit(browser.Close(session)).get(timeout=60)
        with pytest.raises(SessionMissing):
            gaia.submit(browser.Status(session)).get(timeout=60)


def test_a_name_that_comes_to_mean_the_inside_is_refused(fresh_url: str, folder: Path, tmp_path: Path) -> None:
    """The first answer is an allowed address, in place of a public one; the next is loopback, at the same port."""
    with (
        Site(address="127.0.0.2") as outside,
        NameServer() as names,
        socket.create_server(("127.0.0.1", outside.port)) as inside,
    ):
        inside.setblocking(False)
        names.add("rebind.test. 0 IN A 127.0.0.2")
        names.later["rebind.test.", "A"] = ["rebind.test. 0 IN A 127.0.0.1"]
        # Without TLS the refusal is an answer of the proxy.
        script = """let turn = 0;
            const next = found => found.headers.has('x-gaia-egress') ? p.id = 'refused' : setTimeout(ask, 50);
            const ask = () => fetch(`/again?${turn++}`).then(next);
            ask();"""
        outside.routes["/"] = reply(f"<p id=p>{PUBLIC}<script>{script}</script>".encode(), 200, HTML)
        variables = {
            "TMPDIR": str(folder),
            "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.2/32:{outside.port}"]),
            "GAIA_NETWORK__NAMESERVERS": json.dumps([names.address]),
        }
        with worker(fresh_url, "browser", log=tmp_path / "log", **variables), Gaia(fresh_url) as gaia:
            url = outside.url("/", "rebind.test")
            seen = gaia.submit(browser.Capture(url=url, formats=("text",), wait_for="#refused")).get(timeout=60)
            assert seen.text == PUBLIC
            with pytest.raises(EgressDenied) as denied:
                gaia.submit(browser.Capture(url=url)).get(timeout=60)
            assert denied.value.address == "127.0.0.1"
        with pytest.raises(BlockingIOError):
            inside.accept()


class Visits:
    """A page that ends when another visitor comes, or after a second; and how many were there at once."""

    def __init__(self, site: Site) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, int] = {}
        self._two = threading.Event()
        self.most: dict[str, int] = {}
        self.seen = 0
        for path in ("/", "/other"):
            site.routes[path] = lambda asked, _: self._visit(asked.target)

    def _visit(self, path: str) -> bytes:
        with self._lock:
            self.seen += 1
            self._now[path] = self._now.get(path, 0) + 1
            self.most[path] = max(self.most.get(path, 0), self._now[path])
            if self._now[path] > 1:
                self._two.set()
        self._two.wait(1)
        with self._lock:
            self._now[path] -= 1
        return reply(b"<title>There</title>x", 200, HTML)


@pytest.mark.parametrize("name", ["pool:browser", "key:acme"])
def test_a_limit_of_tabs_holds_over_two_workers(
    fresh_url: str, folder: Path, site: Site, tmp_path: Path, name: str
) -> None:
    visits = Visits(site)
    variables = {
        "TMPDIR": str(folder),
        "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"]),
        "GAIA_WORKER__CONCURRENCY": "1",
        "GAIA_BROWSER__WARM_TABS": "0",
    }
    with ExitStack() as held:
        gaia = held.enter_context(Gaia(fresh_url))
        gaia.limits.set(name, concurrency=1)
        for each in ("a", "b"):
            held.enter_context(worker(fresh_url, "browser", log=tmp_path / each, **variables))
        calls = [gaia.submit(browser.Capture(url=site.url(), tenant="acme", formats=("text",))) for _ in range(4)]
        assert [each.get(timeout=120).title for each in calls] == ["There"] * 4
        assert (visits.seen, visits.most["/"]) == (4, 1)
        # Nobody limits these: so it was the limit, and both workers were there.
        gaia.limits.set(name, concurrency=10)
        calls = [gaia.submit(browser.Capture(url=site.url("/other"), tenant="acme")) for _ in range(4)]
        assert [each.get(timeout=120).title for each in calls] == ["There"] * 4
        assert visits.most["/other"] == 2


def test_a_worker_that_stops_hands_its_capture_to_another_and_closes_its_sessions(
    fresh_url: str, folder: Path, site: Site, tmp_path: Path
) -> None:
    asked = threading.Semaphore(0)

    def hang(_: object, __: object) -> None:
        asked.release()
        site.stopped.wait(60)

    site.routes["/slow"] = hang
    variables = {
        "TMPDIR": str(folder),
        "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"]),
        "GAIA_WORKER__GRACE_S": "0.5",
    }

    def start(held: ExitStack, log: str) -> Worker:
        return held.enter_context(worker(fresh_url, "browser", log=tmp_path / log, **variables))

    with ExitStack() as held, Gaia(fresh_url) as gaia:
        first = start(held, "first")
        session = gaia.submit(browser.Open()).get(timeout=60).id
        capture = gaia.submit(browser.Capture(url=site.url("/slow"), formats=("text",), timeout_s=50))
        assert asked.acquire(timeout=30)
        start(held, "second")
        site.routes["/slow"] = reply(b"<title>Second</title>x", 200, HTML)
        os.kill(first.process.pid, signal.SIGTERM)
        assert capture.get(timeout=60).title == "Second"
        first.process.wait(30)
        with pytest.raises(HolderLost):
            gaia.submit(browser.Status(session)).get(timeout=60)
    assert not of_profile(folder)


def test_a_sandbox_that_is_off_is_told_by_health(fresh_url: str, folder: Path, tmp_path: Path) -> None:
    variables = {"TMPDIR": str(folder), "GAIA_BROWSER__NO_SANDBOX": "true"}
    with worker(fresh_url, "browser", log=tmp_path / "log", **variables) as running, Gaia(fresh_url) as gaia:
        seen = gaia.submit(browser.Health()).get(timeout=60)
        assert (seen.healthy, seen.sandbox) == (True, False)
        assert "GAIA_BROWSER__NO_SANDBOX is on" in running.text()

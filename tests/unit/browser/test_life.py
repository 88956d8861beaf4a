"""How browsers start, end, are shared and replaced, and how a capture is given up."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from config.settings import Browser
from gaia.contracts.browser import Capture, Captured
from gaia.errors import (
    BrowserUnavailable,
    Cancelled,
    InvalidSetting,
    PageCrashed,
    PageTimedOut,
    PoolExhausted,
)
from tasks.browser import chromium
from tasks.browser.instance import Instance
from tasks.browser.service import BrowserService
from tasks.runtime.identity import Identity
from tasks.scope import CancelToken, Scope
from tests.support.browsers import page_count, running
from tests.support.waiting import until
from tests.support.web import Asked, Site, reply

Make = Callable[..., BrowserService]


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for profiles that Chromium's user can reach; it is left empty."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    folder.rmdir()


@pytest.fixture
def make(dialler: Any, temporary: Path) -> Iterator[Make]:
    made: list[BrowserService] = []

    def start(**settings: Any) -> BrowserService:
        made.append(
            BrowserService(
                settings=Browser(**{"warm_tabs": 0, **settings}), dialler=dialler, holder=Identity("browser@test")
            )
        )
        return made[-1]

    yield start
    for each in made:
        each.close()


class Hanging:
    """A page that never comes, and who asked for it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.asked = 0
        site.routes["/hang"] = self._hang

    def _hang(self, _: Asked, __: object) -> None:
        self.asked += 1
        self._site.stopped.wait(60)


@pytest.fixture
def hanging(site: Site) -> Iterator[Hanging]:
    yield Hanging(site)
    site.stopped.set()


def take(service: BrowserService, scope: Scope | None = None, **fields: Any) -> Captured:
    fields = {"formats": ("text",), **fields}
    return service.capture(Capture(**fields), scope or Scope.lasting(60, operation=Capture.OPERATION))


def tree(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    """Say whether none runs; one that only waits for its parent to collect it has ended."""
    return not [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def group(number: int) -> list[psutil.Process]:
    """Give what runs in a process group, started when it may."""
    found = []
    for each in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(each.pid) == number and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


# --- start and end


def test_nothing_starts_before_the_first_capture(make: Make, temporary: Path) -> None:
    assert running(make()) is None
    assert not list(temporary.iterdir())


def test_many_first_captures_start_one_browser(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make()
    launches = []
    launch = service.pool._launch
    monkeypatch.setattr(service.pool, "_launch", lambda port: launches.append(1) or launch(port))
    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(lambda n: take(service, html=f"<p>{n}").text, range(8)))
    assert seen == [str(n) for n in range(8)]
    assert len(launches) == 1


def test_close_leaves_no_process_no_profile_and_no_thread(make: Make, temporary: Path) -> None:
    before = set(threading.enumerate())
    service = make()
    take(service, html="x")
    processes = tree(running(service).pid)
    (profile,) = temporary.iterdir()
    assert profile.stat().st_mode & 0o777 == 0o700
    service.close()
    until(lambda: gone(processes), what="the end of every process")
    assert not processes[0].is_running()
    assert not profile.exists()
    assert not [each for each in threading.enumerate() if each.name.startswith("gaia-") and each not in before]
    service.close()


def test_a_closed_service_captures_no_more(make: Make) -> None:
    service = make()
    service.close()
    with pytest.raises(BrowserUnavailable):
        take(service, html="x")


def test_close_ends_a_capture_under_way(make: Make, site: Site, hanging: Hanging) -> None:
    service = make()
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(take, service, url=site.url("/hang"))
        until(lambda: hanging.asked)
        service.close()
        with pytest.raises(BrowserUnavailable):
            under_way.result(20)


def test_a_killed_worker_leaves_no_browser_and_no_profile(temporary: Path) -> None:
    script = """
import sys, threading
from config.settings import Browser
from gaia.contracts.browser import Capture
from tasks.browser.service import BrowserService
from tasks.scope import Scope
service = BrowserService(settings=Browser(), dialler=None, holder=None)
service.capture(Capture(html="x"), Scope.lasting(60))
(browser,) = service.pool.instances
print(browser.pid, browser.home, flush=True)
threading.Event().wait(60)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environ, text=True) as worker:
        assert worker.stdout is not None
        pid, profile = worker.stdout.readline().split()
        assert len(group(int(pid))) > 2
        worker.kill()
    until(lambda: not group(int(pid)), what="Chromium's own end")
    until(lambda: not Path(profile).exists(), what="the end of its profile")


def test_a_killed_browser_is_replaced_and_its_captures_tried_once_more(
    make: Make, site: Site, hanging: Hanging
) -> None:
    service = make()
    with ThreadPoolExecutor(2) as threads:
        under_way = [threads.submit(take, service, url=site.url("/hang")) for _ in range(2)]
        until(lambda: hanging.asked == 2)
        first = running(service)
        site.routes["/hang"] = reply(b"there", 200, "Content-Type: text/html")
        os.killpg(first.pid, signal.SIGKILL)
        assert [each.result(20).text for each in under_way] == ["there", "there"]
    assert running(service) is not first
    assert service.pool.counters["retries"] == 2
    until(lambda: not first.home.exists())


def test_a_browser_that_died_at_rest_is_replaced_unseen(make: Make) -> None:
    service = make()
    take(service, html="x")
    first = running(service)
    os.killpg(first.pid, signal.SIGKILL)
    until(lambda: first.dead)
    assert take(service, html="again").text == "again"


def test_a_page_whose_process_dies_twice_has_crashed(make: Make, site: Site) -> None:
    service = make()
    site.routes["/"] = reply(b"<script>fetch('/here')</script>", 200, "Content-Type: text/html")
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(take, service, url=site.url(), wait_for="#never")
        for number in (1, 2):
            until(lambda n=number: len([each for each in site.asked if each.target == "/here"]) == n)
            for each in tree(running(service).pid):
                if "--type=renderer" in each.cmdline():
                    each.kill()
        with pytest.raises(PageCrashed):
            under_way.result(20)
    assert take(service, html="next").text == "next"


def test_what_is_no_chromium_is_told(make: Make) -> None:
    with pytest.raises(InvalidSetting) as missing:
        take(make(chromium="/no/such/chromium"), html="x")
    assert str(missing.value).startswith("GAIA_BROWSER__CHROMIUM is '/no/such/chromium', which is no program: ")
    with pytest.raises(BrowserUnavailable) as wrong:
        take(make(chromium="/bin/false"), html="x")
    assert wrong.value.reason == "Chromium ended at once: it said nothing"


@pytest.mark.skipif(os.geteuid() != 0, reason="only a worker that runs as root changes the user")
def test_an_unknown_user_is_told(make: Make) -> None:
    with pytest.raises(InvalidSetting) as caught:
        take(make(user="no-such-user"), html="x")
    assert str(caught.value) == "GAIA_BROWSER__USER names 'no-such-user', a user that this machine does not have"


def test_a_failed_start_leaves_nothing(make: Make, temporary: Path) -> None:
    with pytest.raises(BrowserUnavailable):
        take(make(chromium="/bin/false"), html="x")
    assert not list(temporary.iterdir())


def test_a_close_that_is_cancelled_closes_the_pipe_of_its_browser_all_the_same(temporary: Path) -> None:
    async def closing() -> tuple[Instance, bool]:
        made = await Instance.start(chromium.find(None), Browser())
        end = asyncio.create_task(made.close())
        await asyncio.sleep(0)
        end.cancel()
        with suppress(asyncio.CancelledError):
            await end
        assert made._stderr is not None
        return made, made._stderr.is_closing()

    made, is_closing = asyncio.run(closing())  # waits for the thread that ends Chromium
    assert is_closing
    assert not psutil.pid_exists(made.pid)


# --- sharing


def test_a_worn_browser_is_replaced(make: Make) -> None:
    service = make(recycle_after=2)
    take(service, html="1")
    first = running(service)
    processes = tree(first.pid)
    take(service, html="2")
    until(lambda: gone(processes), what="the end of the worn browser")
    assert take(service, html="3").text == "3"
    assert running(service) is not first


def test_a_worn_browser_lives_as_long_as_it_is_used(make: Make, site: Site, hanging: Hanging) -> None:
    service = make(recycle_after=1)
    cancelled = CancelToken()
    scope = Scope("a", Capture.OPERATION, Scope.lasting(60).ends_at, cancelled)
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(take, service, scope, url=site.url("/hang"))
        until(lambda: hanging.asked)
        first = running(service)
        assert take(service, html="other").text == "other"
        assert not first.dead
        cancelled.set()
        with pytest.raises(Cancelled):
            under_way.result(20)
    until(lambda: first.dead)


def test_no_more_pages_are_open_than_allowed(make: Make, site: Site, hanging: Hanging) -> None:
    service = make(max_tabs=1)
    cancelled = CancelToken()
    scope = Scope("a", Capture.OPERATION, Scope.lasting(60).ends_at, cancelled)
    with ThreadPoolExecutor(2) as threads:
        under_way = threads.submit(take, service, scope, url=site.url("/hang"))
        until(lambda: hanging.asked)
        with pytest.raises(PoolExhausted) as caught:
            take(service, html="x", timeout_s=0.2)
        assert (caught.value.pool, caught.value.size) == ("browser tabs", 1)
        waiting = threads.submit(take, service, html="next")
        cancelled.set()
        with pytest.raises(Cancelled):
            under_way.result(20)
        assert waiting.result(20).text == "next"


def test_who_waits_for_a_page_can_be_cancelled(make: Make, site: Site, hanging: Hanging) -> None:
    service = make(max_tabs=1)
    tokens = [CancelToken(), CancelToken()]
    scopes = [Scope(str(n), Capture.OPERATION, Scope.lasting(60).ends_at, token) for n, token in enumerate(tokens)]
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(take, service, scopes[0], url=site.url("/hang"))]
        until(lambda: hanging.asked)
        calls.append(threads.submit(take, service, scopes[1], html="x"))
        for token, call in zip(reversed(tokens), reversed(calls), strict=True):
            token.set()
            with pytest.raises(Cancelled):
                call.result(20)


# --- giving up


@pytest.mark.parametrize(
    "fields", [{"url": "/hang"}, {"html": "<p>x", "wait_for": "#never"}, {"html": "<script>for (;;);</script>"}]
)
def test_a_cancel_ends_a_capture_at_once(make: Make, site: Site, hanging: Hanging, fields: dict[str, str]) -> None:
    service = make()
    take(service, html="warm")
    cancelled = CancelToken()
    scope = Scope("a", Capture.OPERATION, Scope.lasting(60).ends_at, cancelled)
    if "url" in fields:
        fields = {"url": site.url("/hang")}
    targets = page_count(service)
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(take, service, scope, **fields)
        until(lambda: page_count(service) > targets)
        cancelled.set()
        with pytest.raises(Cancelled):
            under_way.result(20)
    assert page_count(service) == targets
    assert take(service, html="next").text == "next"


def test_a_call_cancelled_before_it_starts_opens_nothing(make: Make) -> None:
    service = make()
    scope = Scope.lasting(60)
    scope.cancelled.set()
    with pytest.raises(Cancelled):
        take(service, scope, html="x")
    assert running(service) is None


def test_a_passed_deadline_ends_a_capture(make: Make, site: Site, hanging: Hanging) -> None:
    service = make()
    take(service, html="warm")
    with pytest.raises(PageTimedOut):
        take(service, Scope.lasting(2), url=site.url("/hang"))

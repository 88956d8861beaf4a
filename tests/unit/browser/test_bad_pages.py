"""Pages that misbehave: a typed error in time, a picture where there is a page, and the pool is whole afterwards."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pytest

from config.settings import Browser
from gaia.contracts import browser as b
from gaia.errors import (
    BodyTooLarge,
    GaiaError,
    NavigationFailed,
    PageCrashed,
    PageTimedOut,
    PageTooLarge,
    ScriptFailed,
    StepFailed,
    picture_of,
)
from tasks.browser.service import BrowserService
from tasks.runtime.identity import Identity
from tasks.scope import Scope
from tests.support.browsers import page_count
from tests.support.waiting import until
from tests.support.web import Site, reply

HTML = "Content-Type: text/html; charset=utf-8"
Take = Callable[..., b.Captured]


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return []


@pytest.fixture(scope="module")
def service(dialler: Any, pictures: list[bytes]) -> Iterator[BrowserService]:
    def keep(picture: bytes) -> str:
        pictures.append(picture)
        return f"{len(pictures):032x}:{len(picture)}:{0:064x}"

    settings = Browser(warm_tabs=0, page_bytes=600 * 1024**2, text_bytes=1024**2)
    with closing(BrowserService(settings=settings, dialler=dialler, holder=Identity("bad@test"), keep=keep)) as started:
        yield started


@pytest.fixture(autouse=True)
def _whole(service: BrowserService, take: Take) -> Iterator[None]:
    """Whatever a page did, it is gone and the next one works."""
    yield
    assert take(html="next", formats=("text",)).text == "next"
    assert page_count(service) == 0
    assert service.pool.used == 0


def failing(take: Take, **fields: Any) -> GaiaError:
    with pytest.raises(GaiaError) as caught:
        take(**fields)
    return caught.value


def test_a_selector_that_never_appears_leaves_a_picture(take: Take, pictures: list[bytes]) -> None:
    error = failing(take, html="<h1>here", wait_for="#never", timeout_s=0.5)
    assert isinstance(error, PageTimedOut)
    artifact = picture_of(error)
    assert artifact is not None
    assert artifact.size_bytes == len(pictures[-1])
    assert pictures[-1].startswith(b"\xff\xd8\xff")


def test_a_failed_step_leaves_a_picture(take: Take) -> None:
    error = failing(take, html="x", steps=(b.Step("click", selector="#no", timeout_s=0.2),))
    assert isinstance(error, StepFailed)
    assert picture_of(error) is not None


@pytest.mark.parametrize(
    "script",
    [
        "for (;;);",
        "for (;;) alert(1)",
        "setInterval(() => { const end = Date.now() + 9e9; while (Date.now() < end); })",
    ],
)
def test_a_script_that_never_returns_leaves_a_picture(take: Take, script: str) -> None:
    error = failing(take, html=f"<h1>here</h1><script>onload = () => {{ {script} }}</script>", timeout_s=1)
    assert isinstance(error, PageTimedOut)
    assert picture_of(error) is not None


def test_a_load_that_never_ends_leaves_a_picture(take: Take, site: Site) -> None:
    def hang(_: Any, __: Any) -> None:
        site.stopped.wait(30)

    site.routes |= {"/": reply(b"<h1>here</h1><img src=/slow>", 200, HTML), "/slow": hang}
    error = failing(take, url=site.url(), timeout_s=1)
    assert isinstance(error, PageTimedOut)
    assert picture_of(error) is not None
    site.stopped.set()


def test_a_host_that_cannot_be_reached_leaves_a_picture(take: Take, dialler: Any) -> None:
    with Site() as gone:
        port = gone.port
    dialler.ports.add(port)
    error = failing(take, url=f"http://127.0.0.1:{port}/")
    dialler.ports.discard(port)
    assert isinstance(error, NavigationFailed)
    assert picture_of(error) is not None


def test_a_script_of_the_caller_that_fails_leaves_a_picture(service: BrowserService) -> None:
    scope = Scope.lasting(60, operation="browser.evaluate")
    session = service.open(b.Open(), scope).id
    for expression, kind in (("throw new Error('no')", ScriptFailed), ("for (;;);", PageTimedOut)):
        with pytest.raises(kind) as caught:
            service.evaluate(b.Evaluate(session, expression, timeout_s=0.5), scope)
        assert picture_of(caught.value) is not None
    assert service.evaluate(b.Evaluate(session, "1"), scope).value == 1
    service.close_session(b.Close(session), scope)


def test_a_value_too_large_for_a_reply_fails_its_caller_and_no_other_tab(
    service: BrowserService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.browser.devtools.MAX_MESSAGE_BYTES", 1024**2)
    scope = Scope.lasting(60, operation="browser.evaluate")
    sessions = [service.open(b.Open(), scope).id for _ in range(2)]
    with pytest.raises(BodyTooLarge):
        service.evaluate(b.Evaluate(sessions[0], "'x'.repeat(2e6)"), scope)
    service.evaluate(b.Evaluate(sessions[0], "console.log('x'.repeat(2e6))"), scope)
    assert [service.evaluate(b.Evaluate(each, "1"), scope).value for each in sessions] == [1, 1]
    for each in sessions:
        service.close_session(b.Close(each), scope)


def test_a_page_that_takes_too_much_memory_crashes(take: Take) -> None:
    script = "onload = () => { const all = []; for (;;) all.push(new Float64Array(1e6).fill(1)) }"
    assert isinstance(failing(take, html=f"<script>{script}</script>", timeout_s=60), PageCrashed)


def test_memory_outside_of_the_scripts_heap_counts(take: Take, service: BrowserService) -> None:
    script = "const all = []; setInterval(() => all.push(new Uint8Array(2e7).fill(1)), 5)"
    error = failing(take, html=f"<script>{script}</script>", wait_for="#never", timeout_s=60)
    assert isinstance(error, PageCrashed)
    assert service.pool.counters["over_memory"] >= 1


def test_a_text_over_the_limit_is_refused_inside_the_page(take: Take, site: Site) -> None:
    site.routes["/"] = reply(b"<p hidden>" + b"x" * 5_000_000, 200, HTML)
    error = failing(take, url=site.url(), formats=("html",))
    assert isinstance(error, PageTooLarge)
    assert picture_of(error) is not None
    assert take(url=site.url(), formats=("png",)).png


def test_a_large_page_is_a_page(take: Take, site: Site) -> None:
    site.routes["/"] = reply(b"<!--" + b"x" * 100_000_000 + b"--><p>end", 200, HTML)
    assert take(url=site.url(), formats=("text",), timeout_s=60).text == "end"


def test_a_page_without_end_times_out(take: Take, site: Site) -> None:
    def endless(_: Any, sock: Any) -> None:
        sock.sendall(f"HTTP/1.1 200 OK\r\n{HTML}\r\n\r\n".encode())
        with suppress(OSError):
            while not site.stopped.is_set():
                sock.sendall(b"<p>more" * 1000)

    site.routes["/"] = endless
    assert isinstance(failing(take, url=site.url(), timeout_s=1.5), PageTimedOut)
    site.hang_up()


def test_a_download_without_end_is_no_page(take: Take, site: Site) -> None:
    def endless(_: Any, sock: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\n\r\n")
        with suppress(OSError):
            while not site.stopped.is_set():
                sock.sendall(b"x" * 65536)

    site.routes["/"] = endless
    error = failing(take, url=site.url(), timeout_s=10)
    assert isinstance(error, NavigationFailed)
    assert picture_of(error) is not None
    site.hang_up()


@pytest.mark.parametrize("event", ["beforeunload", "unload", "pagehide"])
def test_a_page_cannot_hold_up_its_end(take: Take, event: str) -> None:
    html = f"<p>here<script>addEventListener('{event}', e => {{ e.preventDefault(); alert(1); for (;;); }})</script>"
    assert take(html=html, formats=("text",)).text == "here"


# --- reuse, and the rest of the pool


def test_a_page_used_again_keeps_nothing(take: Take, site: Site, service: BrowserService) -> None:
    site.routes["/"] = reply(
        b"""<p id=p><script>(async () => {
        const found = [document.cookie, localStorage.x, sessionStorage.x, (await caches.keys()).length,
            (await indexedDB.databases()).length, history.length, navigator.language];
        p.textContent = JSON.stringify(found);
        document.cookie = 'x=1'; localStorage.x = 1; sessionStorage.x = 1;
        if (self.isSecureContext) { await caches.open('x'); }
        await new Promise(done => { indexedDB.open('x').onsuccess = done; });
        p.className = 'done';
    })()</script>""",
        200,
        HTML,
    )
    reused = service.pool.counters["reused"]
    fields: dict[str, Any] = {"url": site.url(), "formats": ("text",), "wait_for": ".done", "isolation": "reuse"}
    first = take(**fields, context=b.Context(locale="de-DE")).text
    second = take(**fields).text
    assert service.pool.counters["reused"] == reused + 1
    assert (first or "").replace("de-DE", "en-US") == second
    take(**fields, tenant="another")
    assert service.pool.counters["reused"] == reused + 1
    service.loop.post(_emptied(service), 10)


def test_a_page_with_frames_of_another_origin_is_not_used_again(
    take: Take, site: Site, service: BrowserService
) -> None:
    site.routes |= {
        "/": reply(f"<iframe src={site.url('/frame', 'other.test')}></iframe>".encode(), 200, HTML),
        "/frame": reply(b"<script>localStorage.x = 1</script>", 200, HTML),
    }
    before = service.pool.gauges()["idle_tabs"]
    take(url=site.url("/", "first.test"), isolation="reuse", formats=("text",))
    assert service.pool.gauges()["idle_tabs"] == before


async def _emptied(service: BrowserService) -> None:
    while await service.pool._shed():
        pass


def test_a_tenant_has_no_more_tabs_than_its_share(dialler: Any, site: Site) -> None:
    entered = threading.Semaphore(0)

    def hang(_: Any, __: Any) -> None:
        entered.release()
        site.stopped.wait(30)

    site.routes["/hang"] = hang
    settings = Browser(warm_tabs=0, tenant_tabs=1)
    with (
        closing(BrowserService(settings=settings, dialler=dialler, holder=Identity("t@test"))) as service,
        ThreadPoolExecutor(1) as threads,
    ):

        def take(**fields: Any) -> b.Captured:
            call = b.Capture(**{"formats": ("text",), **fields})
            return service.capture(call, Scope.lasting(60, operation=call.OPERATION))

        threads.submit(failing, take, url=site.url("/hang"), tenant="a", timeout_s=20)
        assert entered.acquire(timeout=20)
        assert type(failing(take, html="x", tenant="a", timeout_s=0.3)).__name__ == "PoolExhausted"
        assert take(html="x", tenant="b").text == "x"
        site.stopped.set()


def test_forty_tabs_live_at_once_over_two_browsers(dialler: Any) -> None:
    settings = Browser(warm_tabs=2, tabs_per_instance=25, max_instances=2)
    scope = Scope.lasting(100, operation="browser.test")
    with closing(BrowserService(settings=settings, dialler=dialler, holder=Identity("f@test"))) as service:
        sessions = [service.open(b.Open(), scope).id for _ in range(40)]
        for number, each in enumerate(sessions):
            service.evaluate(b.Evaluate(each, f"document.title = {number}"), scope)
        titles = [service.evaluate(b.Evaluate(each, "document.title"), scope).value for each in sessions]
        assert titles == [str(number) for number in range(40)]
        assert service.stats(b.Stats(), scope).gauges["instances"] == 2
        until(lambda: service.stats(b.Stats(), scope).gauges["memory_bytes"] > 0)

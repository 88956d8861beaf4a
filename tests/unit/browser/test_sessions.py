"""Sessions in a real Chromium: tabs, steps, scripts, cookies, extensions, and how they end."""

import base64
import bz2
import gzip
import io
import json
import lzma
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gaia.contracts import browser as b
from gaia.errors import (
    InvalidCall,
    InvalidExtension,
    NavigationFailed,
    PageCrashed,
    PageTimedOut,
    ScriptFailed,
    SessionMissing,
    StepFailed,
    TabMissing,
)
from tasks.browser import extensions
from tasks.browser.service import BrowserService
from tasks.egress.heads import MARK
from tasks.scope import Scope
from tests.support.browsers import page_count, running
from tests.support.waiting import until
from tests.support.web import Asked, Site, reply

HTML = "Content-Type: text/html; charset=utf-8"
FORM = """<!doctype html><title>Form</title><input id=name><select id=size><option>s<option value=l>Large</select>
<button onclick="document.title = `${document.querySelector('#name').value}/${document.querySelector('#size').value}`">
go</button><a href=/next>next</a><div style='height: 5000px'></div><b id=deep>deep</b>"""


def scope() -> Scope:
    return Scope.lasting(60, operation="browser.test")


@pytest.fixture
def session(service: BrowserService) -> Iterator[str]:
    opened = service.open(b.Open(), scope())
    yield opened.id
    service.close_session(b.Close(opened.id), scope())


@pytest.fixture
def form(service: BrowserService, session: str, site: Site) -> str:
    site.routes |= {"/": reply(FORM.encode(), 200, HTML), "/next": reply(b"<title>Next</title>n", 200, HTML)}
    service.navigate(b.Navigate(session, site.url()), scope())
    return session


def script(service: BrowserService, session: str, expression: str, **fields: Any) -> Any:
    return service.evaluate(b.Evaluate(session, expression, **fields), scope()).value


def test_steps_act_as_a_person_does(service: BrowserService, form: str) -> None:
    steps = (
        b.Step("type", selector="#name", text="Ada"),
        b.Step("select", selector="#size", text="Large"),
        b.Step("click", selector="button"),
    )
    assert service.act(b.Act(form, steps), scope()).title == "Ada/l"


def test_keys_are_pressed_and_pages_scrolled(service: BrowserService, form: str) -> None:
    script(service, form, "addEventListener('keydown', e => window.key = e.key + e.isTrusted)")
    steps = (b.Step("press", selector="#name", text="Enter"), b.Step("scroll", dy=700))
    service.act(b.Act(form, steps), scope())
    assert script(service, form, "[key, scrollY]") == ["Entertrue", 700]


def test_a_click_that_leads_on_is_followed(service: BrowserService, form: str, site: Site) -> None:
    steps = (b.Step("click", selector="a"), b.Step("wait", selector="title"))
    service.act(b.Act(form, steps), scope())
    until(lambda: service.status(b.Status(form), scope()).tabs[0].title == "Next")


def test_a_selector_that_never_appears_is_named_by_its_step(service: BrowserService, form: str) -> None:
    steps = (b.Step("wait"), b.Step("click", selector="#no", timeout_s=0.2))
    with pytest.raises(StepFailed) as caught:
        service.act(b.Act(form, steps), scope())
    assert (caught.value.step, caught.value.action) == (1, "click")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (b.Step("click", selector="["), "no CSS selector"),
        (b.Step("select", selector="#size", text="xl"), "no such option"),
        (b.Step("press", text="Nonsense"), "no key"),
    ],
)
def test_a_step_that_cannot_be_done_says_why(service: BrowserService, form: str, step: b.Step, reason: str) -> None:
    with pytest.raises(StepFailed, match=reason):
        service.act(b.Act(form, (step,)), scope())


def test_a_script_gives_its_value(service: BrowserService, form: str) -> None:
    assert script(service, form, "Promise.resolve({a: [1, document.title]})") == {"a": [1, "Form"]}


@pytest.mark.parametrize("expression", ["throw new Error('boom')", "Promise.reject(1)", "(", "window"])
def test_a_script_that_throws_fails(service: BrowserService, form: str, expression: str) -> None:
    with pytest.raises(ScriptFailed):
        script(service, form, expression)
    assert script(service, form, "1") == 1


def test_a_script_that_never_returns_is_ended_and_the_tab_lives(service: BrowserService, form: str) -> None:
    with pytest.raises(PageTimedOut):
        script(service, form, "for (;;);", timeout_s=0.5)
    assert script(service, form, "document.title") == "Form"


def test_fields_are_taken_by_css_and_xpath(service: BrowserService, form: str) -> None:
    wanted = {"options": "option", "link": "a@href", "value": "(//option)[2]/@value", "none": "#no"}
    assert service.extract(b.Extract(form, wanted), scope()).fields == {
        "options": ("s", "Large"),
        "link": ("/next",),
        "value": ("l",),
        "none": (),
    }
    with pytest.raises(InvalidCall):
        service.extract(b.Extract(form, {"x": "//["}), scope())


def test_pictures_paper_and_content_are_taken(service: BrowserService, form: str) -> None:
    script(service, form, "console.log('hello', 1)")
    assert service.screenshot(b.Screenshot(form, format="webp"), scope()).picture[:4] == b"RIFF"
    small = service.screenshot(b.Screenshot(form, selector="button"), scope()).picture
    assert len(small) < len(service.screenshot(b.Screenshot(form, full_page=True), scope()).picture)
    assert service.pdf(b.Pdf(form, landscape=True), scope()).pdf.startswith(b"%PDF")
    seen = service.content(b.Content(form), scope())
    assert ("deep" in seen.text, "<select" in seen.html) == (True, True)
    assert [each.text for each in seen.console] == ["hello 1"]
    assert service.content(b.Content(form), scope()).console == ()


def test_cookies_go_in_and_out(service: BrowserService, session: str, site: Site) -> None:
    site.routes["/"] = lambda asked, _: reply(asked.headers.get("cookie", "none").encode(), 200, HTML)
    jar = service.cookies(b.Cookies(session, add=(b.Cookie("a", "1", domain="127.0.0.1"),)), scope()).cookies
    assert [(each.name, each.value) for each in jar] == [("a", "1")]
    service.navigate(b.Navigate(session, site.url()), scope())
    assert service.content(b.Content(session), scope()).text == "a=1"
    assert service.cookies(b.Cookies(session, clear=True), scope()).cookies == ()


def test_tabs_share_their_session_and_end_alone(service: BrowserService, form: str, site: Site) -> None:
    script(service, form, "localStorage.x = 1")
    second = service.open_tab(b.OpenTab(form, site.url("/next")), scope())
    assert (second.title, second.status) == ("Next", 200)
    assert script(service, form, "localStorage.x", tab=second.tab) == "1"
    assert len(service.status(b.Status(form), scope()).tabs) == 2
    assert service.close_tab(b.CloseTab(form, second.tab), scope()).was_open
    assert not service.close_tab(b.CloseTab(form, second.tab), scope()).was_open
    with pytest.raises(TabMissing):
        script(service, form, "1", tab=second.tab)
    assert script(service, form, "1") == 1


def test_two_sessions_share_nothing(service: BrowserService, form: str, site: Site) -> None:
    script(service, form, "localStorage.x = 1; document.cookie = 'x=1'")
    other = service.open(b.Open(), scope()).id
    service.navigate(b.Navigate(other, site.url()), scope())
    assert script(service, other, "[localStorage.x ?? null, document.cookie]") == [None, ""]
    assert {each.id for each in service.list(b.List(), scope()).items} >= {form, other}
    service.close_session(b.Close(other), scope())


def test_a_closed_session_is_gone_and_says_so(service: BrowserService) -> None:
    session = service.open(b.Open(), scope()).id
    pages = page_count(service)
    assert service.close_session(b.Close(session), scope()).was_open
    assert page_count(service) == pages - 1
    assert not service.close_session(b.Close(session), scope()).was_open
    with pytest.raises(SessionMissing, match="closed"):
        service.status(b.Status(session), scope())


def test_an_idle_session_expires(service: BrowserService) -> None:
    session = service.open(b.Open(idle_s=1), scope()).id
    until(lambda: session not in service.sessions.all, what="the session's end")
    with pytest.raises(SessionMissing, match="idle"):
        service.status(b.Status(session), scope())


def test_a_tab_that_crashes_is_gone_and_the_session_lives(service: BrowserService, form: str) -> None:
    second = service.open_tab(b.OpenTab(form), scope()).tab
    with pytest.raises(PageCrashed):
        script(service, form, "const all = []; for (;;) all.push(new Array(1e6).fill(1.5))", tab=second)
    with pytest.raises(TabMissing):
        script(service, form, "1", tab=second)


def test_a_place_shows_a_page_what_it_is_told(service: BrowserService, site: Site) -> None:
    given = b.Context(
        device="phone",
        locale="de-DE",
        timezone="Asia/Tokyo",
        color_scheme="dark",
        headers={"X-Key": "k"},
        block=("image",),
    )
    seen: list[Asked] = []
    body = b"<img src=/i.png><script>fetch('/other')</script>"
    site.routes |= {"/": lambda asked, _: seen.append(asked) or reply(body, 200, HTML)}
    session = service.open(b.Open(context=given), scope()).id
    service.navigate(b.Navigate(session, site.url()), scope())
    told = script(
        service,
        session,
        "[innerWidth > 300 && devicePixelRatio, navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone,"
        "matchMedia('(prefers-color-scheme: dark)').matches, navigator.userAgent.includes('Mobile')]",
    )
    assert told == [2.625, "de-DE", "Asia/Tokyo", True, True]
    assert seen[0].headers["x-key"] == "k"
    until(lambda: [each for each in site.asked if each.target == "/other"])
    assert not [each for each in site.asked if each.target == "/i.png"]
    service.close_session(b.Close(session), scope())


@pytest.mark.parametrize("given", [b.Context(timezone="Mars/Base"), b.Context(locale="no such locale!!")])
def test_a_place_that_does_not_exist_is_refused_and_nothing_left(service: BrowserService, given: b.Context) -> None:
    service.open(b.Open(), scope())
    pages = page_count(service)
    with pytest.raises(InvalidCall):
        service.open(b.Open(context=given), scope())
    assert page_count(service) == pages


# --- extensions


MANIFEST: dict[str, Any] = {
    "manifest_version": 3,
    "name": "Marker",
    "version": "1",
    "content_scripts": [{"matches": ["<all_urls>"], "js": ["mark.js"]}],
}


def packed(form: str = "zip", manifest: Any = MANIFEST, **files: str) -> bytes:
    given = {"manifest.json": json.dumps(manifest), "mark.js": "document.documentElement.dataset.mark = 'ran'", **files}
    body = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(body, "w") as pack:
            for name, text in given.items():
                pack.writestr(name, text)
    else:
        with tarfile.open(fileobj=body, mode="w:gz") as tar:
            for name, text in given.items():
                entry = tarfile.TarInfo(f"folder/{name}")
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
    return body.getvalue()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no full Chromium: gaia chromium --install --full")
def test_an_extension_runs_and_a_bad_one_is_refused(service: BrowserService, site: Site) -> None:
    site.routes["/"] = reply(b"<p>x", 200, HTML)
    session = service.open(b.Open(extensions=True), scope()).id
    loaded = service.load_extension(b.LoadExtension(session, packed("tar")), scope())
    assert loaded.name == "Marker"
    service.navigate(b.Navigate(session, site.url()), scope())
    assert script(service, session, "document.documentElement.dataset.mark") == "ran"
    assert service.status(b.Status(session), scope()).extensions == (loaded.id,)
    for bad in (
        b"no archive",
        packed(**{"manifest.json": "{"}),
        packed(**{"../x": ""}),
        packed(manifest=MANIFEST | {"permissions": ["storage", "proxy"]}),
        packed(manifest=MANIFEST | {"optional_permissions": ["debugger"]}),
        packed(**{"manifest.json": '{"manifest_version": 3}'}),
    ):
        with pytest.raises(InvalidExtension):
            service.load_extension(b.LoadExtension(session, bad), scope())
    instance = running(service)
    assert instance is not None
    service.close_session(b.Close(session), scope())
    assert instance.dead
    assert not instance.home.exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no full Chromium: gaia chromium --install --full")
def test_an_extension_reaches_no_more_than_a_page(service: BrowserService, site: Site, dialler: Any) -> None:
    site.routes["/"] = reply(b"<p>x", 200, HTML)
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.setblocking(False)
        port = inside.getsockname()[1]
        fetching = (
            f"const tried = fetch('http://127.0.0.1:{port}/').then(found => found.headers.get('{MARK}') ?? 'reached');"
        )
        answering = "chrome.runtime.onMessage.addListener((_, __, say) => { tried.then(say); return true });"
        background = fetching + answering
        mark = "chrome.runtime.sendMessage(1).then(said => { document.documentElement.dataset.mark = said; });"
        manifest = MANIFEST | {"host_permissions": ["<all_urls>"], "background": {"service_worker": "back.js"}}
        session = service.open(b.Open(extensions=True), scope()).id
        archive = packed(manifest=manifest, **{"back.js": background, "mark.js": mark})
        service.load_extension(b.LoadExtension(session, archive), scope())
        service.navigate(b.Navigate(session, site.url(), wait_for="[data-mark]"), scope())
        assert script(service, session, "document.documentElement.dataset.mark") == "denied"
        assert ("127.0.0.1", port) in dialler.asked
        with pytest.raises(BlockingIOError):
            inside.accept()
    service.close_session(b.Close(session), scope())


ESCAPING = """
const told = async asked => {
    const denied = failure => 'denied: ' + failure;
    if (asked === 'file') return chrome.tabs.create({url: 'file:///etc/passwd'}).then(() => 'opened', denied);
    if (asked === 'fetch') return fetch('file:///etc/passwd').then(it => it.text(), denied);
    if (asked === 'open') return chrome.tabs.create({url: 'about:blank#mine'}).then(() => 'opened', denied);
    const [tab] = await chrome.tabs.query({url: 'http://*/*'});
    return chrome.tabs.update(tab.id, {url: 'chrome://extensions/'}).then(() => 'led', denied);
};
chrome.runtime.onMessage.addListener((asked, __, say) => { told(asked).then(say); return true });
"""
RELAYING = """addEventListener('message', event => chrome.runtime.sendMessage(event.data).then(
    said => { document.documentElement.dataset.said = said; }));
document.documentElement.dataset.mark = 1;"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no full Chromium: gaia chromium --install --full")
def test_an_extension_reads_no_file_and_leads_no_script_to_the_browsers_own_pages(
    service: BrowserService, site: Site
) -> None:
    site.routes["/"] = reply(b"<p>x", 200, HTML)
    manifest = MANIFEST | {
        "key": base64.b64encode(b"a key of its own, for an identity of its own").decode(),
        "permissions": ["tabs", "scripting"],
        "host_permissions": ["<all_urls>", "file:///*"],
        "background": {"service_worker": "back.js"},
    }
    session = service.open(b.Open(extensions=True), scope()).id
    archive = packed("tar", manifest, **{"back.js": ESCAPING, "mark.js": RELAYING})
    service.load_extension(b.LoadExtension(session, archive), scope())
    service.navigate(b.Navigate(session, site.url(), wait_for="[data-mark]"), scope())

    def said(asked: str) -> str:
        script(service, session, f"delete document.documentElement.dataset.said; postMessage('{asked}')")
        service.act(b.Act(session, (b.Step("wait", selector="[data-said]"),)), scope())
        return str(script(service, session, "document.documentElement.dataset.said"))

    assert said("file").startswith("denied")
    assert said("fetch").startswith("denied")
    assert said("open") == "opened"
    until(lambda: page_count(service) == 1, what="the end of the tab that the extension opened")
    script(service, session, "postMessage('lead')")
    until(lambda: service.status(b.Status(session), scope()).tabs[0].url.startswith("chrome:"))
    for call, run in (
        (b.Evaluate(session, "1"), service.evaluate),
        (b.Act(session, (b.Step("press", text="Tab"),)), service.act),
        (b.Extract(session, {"a": "body"}), service.extract),
    ):
        with pytest.raises(NavigationFailed, match="chrome"):
            run(call, scope())  # type: ignore[operator]
    assert service.navigate(b.Navigate(session, site.url()), scope()).status == 200
    assert script(service, session, "1") == 1
    service.close_session(b.Close(session), scope())


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_an_archive_that_grows_without_bound_is_refused(tmp_path: Path, compress: Any) -> None:
    # The name of a member: read whole by the reader of archives, and counted by nobody.
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 100 * 1024**2
    with pytest.raises(InvalidExtension, match="over"):
        extensions.laid_down(compress(head.tobuf(tarfile.GNU_FORMAT) + bytes(head.size)), tmp_path, None, 0)


def test_a_link_in_the_browsers_own_directory_leads_no_file_out_of_it(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (home / "extension-0").symlink_to(outside)
    with pytest.raises(InvalidExtension):
        extensions.laid_down(packed(), home, None, 0)
    assert not list(outside.iterdir())


def test_a_session_without_extensions_takes_none(service: BrowserService, session: str) -> None:
    with pytest.raises(InvalidCall):
        service.load_extension(b.LoadExtension(session, packed()), scope())

"""What a page must not reach: addresses, files, other pages, the worker."""

import os
import pwd
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from gaia.contracts.browser import Captured
from gaia.errors import EgressDenied, NavigationFailed, TimedOut
from tasks.browser.service import BrowserService
from tests.support.browsers import ask, page_count, running
from tests.support.web import Asked, Site, reply

T = TypeVar("T")
Take = Callable[..., Captured]
HTML = "Content-Type: text/html; charset=utf-8"


def page(body: str, *fields: str) -> bytes:
    return reply(f"<!doctype html>{body}".encode(), 200, HTML, *fields)


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """A file that anyone may read, so that only Chromium's own rules keep a page from it."""
    file = Path("/etc/passwd")
    assert file.read_text().startswith("root:")
    return file.as_uri()


# --- addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "https://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
        "http://127.0.0.1:81/",
        "http://2130706433:81/",
        "http://[::1]:8080/",
        "https://[::1]:8080/",
        "https://internal.example/",
    ],
)
def test_a_denied_address_is_named(take: Take, url: str) -> None:
    with pytest.raises(EgressDenied) as caught:
        take(url=url)
    assert caught.value.reason == "it is not on the list"


@pytest.mark.parametrize("wait_for", [None, "#never"])
@pytest.mark.parametrize("target", ["http://10.0.0.1/", "https://10.0.0.1/"])
def test_a_redirect_to_a_denied_address_is_named(take: Take, site: Site, target: str, wait_for: str | None) -> None:
    site.routes["/"] = reply(b"", 302, f"Location: {target}")
    with pytest.raises(EgressDenied) as caught:
        take(url=site.url(), wait_for=wait_for)
    assert caught.value.host == "10.0.0.1"


@pytest.mark.parametrize("target", ["http://10.0.0.1/", "https://10.0.0.1/"])
def test_a_page_that_leads_to_a_denied_address_is_named(take: Take, site: Site, target: str) -> None:
    site.routes["/"] = page(f"<script>location = '{target}'</script>")
    with pytest.raises(EgressDenied):
        take(url=site.url(), wait_for="#never")


def test_a_denied_part_of_a_page_is_left_out(take: Take, site: Site) -> None:
    site.routes["/"] = page(
        "<p>there<img src=http://10.0.0.1/a.png><iframe src=https://10.0.0.2/></iframe>"
        "<script>fetch('http://10.0.0.3/').catch(() => {}); new WebSocket('ws://10.0.0.4/')</script>"
    )
    assert take(url=site.url(), formats=("text",)).text == "there"


def test_a_site_cannot_pass_a_page_off_as_a_refusal(take: Take, site: Site) -> None:
    site.routes["/"] = page("<p>there", "X-Gaia-Egress: denied")
    assert take(url=site.url(), formats=("text",)).text == "there"


def test_names_are_resolved_by_the_dialler_alone(take: Take, site: Site, dialler: Any) -> None:
    site.routes["/"] = page("<p>there<link rel=dns-prefetch href=//prefetched.test>")
    assert take(url=site.url("/", "some.test"), formats=("text",)).text == "there"
    assert ("some.test", site.port) in dialler.asked


def test_no_udp_packet_leaves_a_page(take: Take, site: Site) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        site.routes["/"] = page(f"""<p id=p>gathering<script>
            const peer = new RTCPeerConnection({{iceServers: [{{urls: 'stun:127.0.0.1:{port}'}}]}});
            peer.createDataChannel('d');
            const tried = [
                peer.createOffer().then(offer => peer.setLocalDescription(offer)),
                new WebTransport('https://127.0.0.1:{port}/').ready,
            ];
            Promise.allSettled(tried).then(() => setTimeout(() => {{ p.id = 'tried'; }}, 500));
        </script>""")
        take(url=site.url(), formats=("text",), wait_for="#tried")
        udp.setblocking(False)
        with pytest.raises(BlockingIOError):
            udp.recv(1)


def test_a_web_socket_goes_through_the_proxy(take: Take, site: Site) -> None:
    site.routes["/"] = page(
        "<script>new WebSocket(`ws://${location.host}/ws`).onerror = () => document.body.id = 'e'</script>"
    )
    take(url=site.url(), formats=("text",), wait_for="#e")
    (asked,) = [each for each in site.asked if each.target == "/ws"]
    assert asked.headers["upgrade"] == "websocket"


@pytest.fixture
def tls_site(dialler: Any, tmp_path: Path) -> Iterator[Site]:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=a.test", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl program")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Site(context) as server:
        dialler.ports.add(server.port)
        yield server


def test_a_certificate_that_no_one_signed_is_refused(take: Take, tls_site: Site) -> None:
    with pytest.raises(NavigationFailed) as caught:
        take(url=tls_site.url("/", "a.test"))
    assert caught.value.reason == "net::ERR_CERT_AUTHORITY_INVALID"


# --- files and schemes


@pytest.mark.parametrize("scheme", ["file", "data", "chrome", "view-source"])
def test_a_redirect_to_another_scheme_is_refused(take: Take, site: Site, secret: str, scheme: str) -> None:
    target = {"file": secret, "data": "data:text/html,hi", "chrome": "chrome://version", "view-source": "view-source:x"}
    site.routes["/"] = reply(b"", 302, f"Location: {target[scheme]}")
    with pytest.raises(NavigationFailed):
        take(url=site.url())


@pytest.mark.parametrize(
    "script",
    [
        "location = '{file}'",
        "location = 'chrome://version'",
        "location = 'data:text/html,<p id=leak>'",
        "open('{file}', '_self')",
        "document.body.innerHTML = '<iframe src={file}></iframe>'",
        "document.head.innerHTML = '<meta http-equiv=refresh content=\"0;url={file}\">'",
        "fetch('{file}').then(r => r.text()).then(t => document.body.id = 'leak')",
    ],
)
@pytest.mark.parametrize("given", ["url", "html"])
def test_a_page_cannot_show_what_is_no_web_page(take: Take, site: Site, secret: str, script: str, given: str) -> None:
    later = "setTimeout(() => document.body.className = 'on', 300)"
    body = f"<p>there<script>{script.replace('{file}', secret)}; {later}</script>"
    site.routes["/"] = page(body)
    call = {"url": site.url()} if given == "url" else {"html": body}
    seen = take(**call, formats=("html", "text", "pdf"), wait_for="body.on")
    assert "root:" not in (seen.text or "")
    assert "leak" not in (seen.html or "").split("</script>")[-1]


# --- other pages


def test_two_captures_at_once_share_no_cookie(take: Take, site: Site) -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(asked: Asked, _: object) -> bytes:
        both.wait()
        return page(f"<p>{asked.headers.get('cookie', 'none')}")

    def enter(asked: Asked, _: object) -> bytes:
        name = asked.target.partition("?")[2]
        return reply(b"", 302, f"Set-Cookie: who={name}", "Location: /meet")

    site.routes |= {"/enter": enter, "/meet": meet}
    seen: dict[str, str | None] = {}

    def visit(name: str) -> None:
        seen[name] = take(url=site.url(f"/enter?{name}"), formats=("text",)).text

    threads = [threading.Thread(target=visit, args=(name,)) for name in ("a", "b")]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert seen == {"a": "who=a", "b": "who=b"}
    site.routes["/again"] = lambda asked, _: page(f"<p>{asked.headers.get('cookie', 'none')}")
    assert take(url=site.url("/again"), formats=("text",)).text == "none"


def test_windows_that_a_page_opens_leave_nothing(take: Take, service: BrowserService, site: Site) -> None:
    site.routes["/"] = page("""<a id=a href=/other target=_blank rel=noopener>a</a><script>
        for (let i = 0; i < 20; i++) open('/other');
        open('about:blank', '', 'noopener');
        a.click();
        setTimeout(() => document.body.id = 'opened', 200);
    </script>""")
    take(url=site.url(), formats=("text",), wait_for="#opened")
    assert page_count(service) == 0
    assert ask(service, "Target.getBrowserContexts")["browserContextIds"] == []


def test_a_failed_capture_leaves_nothing(take: Take, service: BrowserService) -> None:
    with pytest.raises(TimedOut):
        take(html="x", wait_for="#never", timeout_s=0.3)
    assert page_count(service) == 0


def test_what_a_page_redefines_does_not_reach_the_capture(take: Take) -> None:
    html = """<title>true</title><p>seen<script>
        Object.defineProperty(document, 'title', {get: () => ({lie: 1})});
        document.querySelector = () => { throw 1 };
        JSON.stringify = Promise.prototype.then = window.setInterval = null;
    </script>"""
    seen = take(html=html, formats=("text", "html"), wait_for="p")
    assert (seen.title, seen.text) == ("true", "seen")


# --- the worker


def test_chromium_knows_none_of_the_workers_variables(
    take: Take, service: BrowserService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAIA_REDIS_URL", "redis://:hunter2@127.0.0.1/0")
    take(html="x")
    names = {name for variables in _of_each(service, psutil.Process.environ) for name in variables}
    assert "HOME" in names
    assert not [each for each in names if each.startswith("GAIA_")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only a worker that runs as root changes the user")
def test_under_a_root_worker_chromium_runs_as_another_user(take: Take, service: BrowserService) -> None:
    take(html="x")
    users = dict(_of_each(service, lambda each: (each.pid, each.uids().real)))
    chromium = running(service)
    assert chromium is not None
    # The first is the shell that removes the profile; it runs nothing that came from a page.
    assert users.pop(chromium.pid) == 0
    assert set(users.values()) == {pwd.getpwnam("nobody").pw_uid}


def test_the_sandbox_is_on(take: Take, service: BrowserService) -> None:
    take(html="x")
    zygotes = [
        pid for pid, argv in _of_each(service, lambda each: (each.pid, each.cmdline())) if "--type=zygote" in argv
    ]
    networks = {Path(f"/proc/{pid}/ns/net").readlink() for pid in zygotes}
    assert networks - {Path("/proc/self/ns/net").readlink()}


def _of_each(service: BrowserService, look: Callable[[psutil.Process], T]) -> list[T]:
    """Look at each process of the browser; renderers come and go, and some let no one look."""
    chromium = running(service)
    assert chromium is not None
    top = psutil.Process(chromium.pid)
    seen = []
    for each in (top, *top.children(recursive=True)):
        with suppress(psutil.Error):
            seen.append(look(each))
    assert seen
    return seen

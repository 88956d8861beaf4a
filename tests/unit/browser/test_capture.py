"""What a capture gives, of pages in a real Chromium."""

import struct
import threading
import zlib
from collections.abc import Callable

import pytest

from gaia.contracts.browser import Captured, Viewport
from gaia.errors import InvalidCall, NavigationFailed, TimedOut
from tests.support.web import Asked, Site, reply

Take = Callable[..., Captured]
HTML = "Content-Type: text/html; charset=utf-8"


class Picture:
    """A PNG of 8-bit RGB, as Chromium writes them (PNG specification, 9 and 11)."""

    def __init__(self, png: bytes) -> None:
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        self.width, self.height, depth, kind = struct.unpack_from(">IIBB", png, 16)
        assert (depth, kind) == (8, 2)
        self._rows = self._unfiltered(zlib.decompress(b"".join(self._data(png))))

    def __getitem__(self, at: tuple[int, int]) -> tuple[int, ...]:
        x, y = at
        return tuple(self._rows[y][3 * x : 3 * x + 3])

    def colours(self) -> set[tuple[int, ...]]:
        return {self[x, y] for y in range(self.height) for x in range(self.width)}

    @staticmethod
    def _data(png: bytes) -> list[bytes]:
        at, found = 8, []
        while at < len(png):
            (size,) = struct.unpack_from(">I", png, at)
            if png[at + 4 : at + 8] == b"IDAT":
                found.append(png[at + 8 : at + 8 + size])
            at += size + 12
        return found

    def _unfiltered(self, raw: bytes) -> list[bytearray]:
        size = 3 * self.width
        above, rows = bytearray(size), []
        for at in range(0, len(raw), size + 1):
            row = bytearray(raw[at + 1 : at + 1 + size])
            for i in range(size):
                left, corner = (row[i - 3], above[i - 3]) if i >= 3 else (0, 0)
                row[i] = (row[i] + self._predicted(raw[at], left, above[i], corner)) & 0xFF
            rows.append(row)
            above = row
        return rows

    @staticmethod
    def _predicted(kind: int, left: int, up: int, corner: int) -> int:
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda each: abs(guess - each))
        return (0, left, up, (left + up) // 2, nearest)[kind]


def page(body: str, status: int = 200) -> bytes:
    return reply(f"<!doctype html>{body}".encode(), status, HTML)


def test_a_picture_has_the_size_and_colour_of_the_page(take: Take, site: Site) -> None:
    site.routes["/"] = page("<body style='background: rgb(255, 0, 0)'>")
    seen = take(url=site.url(), viewport=Viewport(64, 48))
    picture = Picture(seen.png or b"")
    assert (picture.width, picture.height) == (64, 48)
    assert picture.colours() == {(255, 0, 0)}


def test_text_is_drawn(take: Take) -> None:
    seen = take(html="<body style='margin: 0'><h1>Gaia", viewport=Viewport(120, 60))
    assert Picture(seen.png or b"")[119, 59] == (255, 255, 255)
    assert (0, 0, 0) in Picture(seen.png or b"").colours()


def test_scale_multiplies_the_pixels(take: Take) -> None:
    picture = Picture(take(html="<p>x", viewport=Viewport(32, 16, 2.5)).png or b"")
    assert (picture.width, picture.height) == (80, 40)


def test_a_full_page_is_as_high_as_its_content(take: Take) -> None:
    html = "<body style='margin: 0'><div style='height: 300px'></div><div style='height: 20px; background: #00f'>"
    picture = Picture(take(html=html, viewport=Viewport(40, 30), full_page=True).png or b"")
    assert (picture.width, picture.height) == (40, 320)
    assert (picture[5, 299], picture[5, 300]) == ((255, 255, 255), (0, 0, 255))


def test_a_full_page_ends_where_chromium_stops_drawing(take: Take) -> None:
    html = "<body style='margin: 0'><div style='height: 9000000px'>"
    png = take(html=html, viewport=Viewport(16, 16, 2), full_page=True).png or b""
    assert struct.unpack_from(">II", png, 16) == (32, 16384)


def test_every_format_comes_of_one_visit(take: Take, site: Site) -> None:
    site.routes["/"] = page("<title>One</title><p id=p>Grüße<script>p.append(' & more')</script>")
    seen = take(url=site.url(), formats=("png", "jpeg", "webp", "pdf", "html", "text", "text"))
    assert (seen.png or b"").startswith(b"\x89PNG")
    assert (seen.jpeg or b"").startswith(b"\xff\xd8\xff")
    assert (seen.webp or b"")[:4] + (seen.webp or b"")[8:12] == b"RIFFWEBP"
    assert (seen.pdf or b"").startswith(b"%PDF-")
    assert (seen.html or "").startswith("<!DOCTYPE html>\n<html>")
    assert "Grüße" in (seen.html or "")
    assert seen.text == "Grüße & more"
    assert (seen.url, seen.title, seen.status) == (site.url(), "One", 200)
    assert [each.target for each in site.asked if each.target != "/favicon.ico"] == ["/"]


def test_only_what_was_asked_for_is_set(take: Take) -> None:
    seen = take(html="<title>T</title>x", formats=("text",))
    assert (seen.png, seen.jpeg, seen.webp, seen.pdf, seen.html) == (None, None, None, None, None)


def test_a_page_given_as_html_has_no_status_and_its_scripts_run(take: Take) -> None:
    html = "<title>T</title><p>a<script>document.write('b'); onload = () => document.body.append('c')</script>"
    seen = take(html=html, formats=("text",))
    assert (seen.url, seen.title, seen.status) == ("about:blank", "T", None)
    assert (seen.text or "").split() == ["ab", "c"]


def test_an_empty_page_can_be_captured(take: Take) -> None:
    assert take(html="", formats=("text", "png")).text == ""


def test_half_a_character_is_replaced(take: Take) -> None:
    html = "<title>x</title><script>document.title = 'a\\ud800b'; document.write('c\\udc00d&#128512;')</script>"
    seen = take(html=html, formats=("text",))
    assert (seen.title, seen.text) == ("a\ufffdb", "c\ufffdd\U0001f600")


def test_a_page_cannot_close_itself(take: Take, site: Site) -> None:
    site.routes["/"] = page("<p>there<script>close()</script>")
    assert take(url=site.url(), formats=("text",)).text == "there"


def test_images_are_waited_for(take: Take, site: Site) -> None:
    site.routes["/dot.svg"] = reply(
        b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'><rect width='8' height='8' fill='lime'/></svg>",
        200,
        "Content-Type: image/svg+xml",
    )
    site.routes["/"] = page("<body style='margin: 0'><img style='display: block' src=/dot.svg>")
    picture = Picture(take(url=site.url(), viewport=Viewport(16, 16)).png or b"")
    assert picture.colours() == {(0, 255, 0), (255, 255, 255)}


@pytest.mark.parametrize("status", [404, 500, 502])
def test_an_error_page_of_the_server_is_a_page(take: Take, site: Site, status: int) -> None:
    site.routes["/"] = page("<p>sorry", status)
    seen = take(url=site.url(), formats=("text",))
    assert (seen.status, seen.text) == (status, "sorry")


def test_a_redirect_is_followed(take: Take, site: Site) -> None:
    site.routes["/"] = reply(b"", 302, "Location: /there?a=b")
    site.routes["/there"] = page("<p>here")
    seen = take(url=site.url(), formats=("text",))
    assert (seen.url, seen.status, seen.text) == (site.url("/there?a=b"), 200, "here")


def test_what_is_no_html_is_captured_too(take: Take, site: Site) -> None:
    site.routes["/"] = reply(b"<?xml version='1.0'?><a>b</a>", 200, "Content-Type: text/xml")
    assert "b" in (take(url=site.url(), formats=("text",)).text or "")


# --- waiting


def test_an_element_that_comes_later_is_waited_for(take: Take, site: Site) -> None:
    site.routes["/"] = page("<script>setTimeout(() => document.body.innerHTML = '<b id=late>now</b>', 200)</script>")
    assert take(url=site.url(), formats=("text",), wait_for="#late").text == "now"


def test_a_state_that_is_no_change_of_the_document_is_waited_for(take: Take) -> None:
    html = "<input id=i type=checkbox><script>setTimeout(() => i.checked = true, 100)</script>"
    take(html=html, formats=("text",), wait_for="input:checked")


def test_an_element_of_the_next_page_is_waited_for(take: Take, site: Site) -> None:
    site.routes["/"] = page("<script>setTimeout(() => location = '/next', 50)</script>first")
    site.routes["/next"] = page("<p class=there>second")
    seen = take(url=site.url(), formats=("text",), wait_for=".there")
    assert (seen.url, seen.text) == (site.url("/next"), "second")


def test_an_element_that_never_comes_times_out(take: Take) -> None:
    with pytest.raises(TimedOut) as caught:
        take(html="<p>x", wait_for="#never", timeout_s=1)
    assert caught.value.args[:3] == ("browser.capture", 1, "about:blank")


@pytest.mark.parametrize("selector", ["[", "a b >", "::", "'", "p{}", "", "\n", "\u2028)"])
def test_what_is_no_selector_is_refused_before_the_visit(take: Take, site: Site, selector: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        take(url=site.url(), wait_for=selector)
    assert caught.value.field == "wait_for"
    assert site.asked == []


def test_a_selector_is_text_and_no_script(take: Take) -> None:
    html = """<p title="\\') || true || ('">x"""
    take(html=html, formats=("text",), wait_for="""p[title="\\\\') || true || ('"]""")
    with pytest.raises(TimedOut):
        take(html="<p>x", wait_for="""p[title="') || true || ('"]""", timeout_s=0.5)


def test_a_load_that_never_ends_times_out(take: Take, site: Site) -> None:
    def hang(_: Asked, __: object) -> None:
        site.stopped.wait(30)

    site.routes["/slow.png"] = hang
    site.routes["/"] = page("<img src=/slow.png>")
    with pytest.raises(TimedOut):
        take(url=site.url(), timeout_s=1)
    site.stopped.set()


def test_a_server_that_never_answers_times_out(take: Take, site: Site) -> None:
    def hang(_: Asked, __: object) -> None:
        site.stopped.wait(30)

    site.routes["/"] = hang
    with pytest.raises(TimedOut):
        take(url=site.url(), timeout_s=1)
    site.stopped.set()


def test_a_request_that_never_ends_after_the_load_holds_nothing_up(take: Take, site: Site) -> None:
    started = threading.Event()

    def hang(_: Asked, __: object) -> None:
        started.set()
        site.stopped.wait(30)

    site.routes["/poll"] = hang
    site.routes["/"] = page("<p>there<script>fetch('/poll')</script>")
    assert take(url=site.url(), formats=("text",)).text == "there"
    site.stopped.set()


def test_a_script_that_never_ends_times_out_and_harms_no_other_page(take: Take) -> None:
    with pytest.raises(TimedOut):
        take(html="<script>onload = () => { for (;;); }</script>", timeout_s=1)
    assert take(html="<p>next", formats=("text",)).text == "next"


@pytest.mark.parametrize(
    "script",
    [
        "alert('a'); confirm('b'); prompt('c')",
        "onbeforeunload = event => { event.preventDefault(); return 'stay' }",
        "print()",
        "setInterval(() => alert('again'), 1)",
    ],
)
def test_a_dialog_holds_nothing_up(take: Take, site: Site, script: str) -> None:
    site.routes["/"] = page(f"<p>there<script>{script}</script>")
    assert take(url=site.url(), formats=("text",)).text == "there"


# --- refusals


def test_a_viewport_larger_than_chromium_draws_is_refused(take: Take) -> None:
    with pytest.raises(InvalidCall) as caught:
        take(html="x", viewport=Viewport(8192, 8192, 2))
    assert caught.value.field == "viewport"


def test_a_host_that_cannot_be_reached_fails_with_the_reason_and_no_secret(take: Take, site: Site) -> None:
    port = site.port
    site.__exit__(None, None, None)
    with pytest.raises(NavigationFailed) as caught:
        take(url=f"http://user:hunter2@127.0.0.1:{port}/?token=hunter2")
    assert "Connection refused" in caught.value.reason
    assert "hunter2" not in repr(caught.value)


def test_a_download_is_no_page(take: Take, site: Site) -> None:
    site.routes["/"] = reply(b"\0" * 64, 200, "Content-Type: application/octet-stream")
    with pytest.raises(NavigationFailed):
        take(url=site.url())


def test_a_connection_that_breaks_is_a_failed_navigation(take: Take, site: Site) -> None:
    site.routes["/"] = lambda _, __: None
    with pytest.raises(NavigationFailed) as caught:
        take(url=site.url())
    assert caught.value.reason == "net::ERR_EMPTY_RESPONSE"

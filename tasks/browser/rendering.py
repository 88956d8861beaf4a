"""What a page is made into: pictures, PDF, markup, text."""

import base64
from collections.abc import Sequence
from typing import Any, Final

from gaia.contracts.browser import Capture, Format, Viewport
from tasks.browser.devtools import Reply
from tasks.browser.page import Page

MAX_SIDE_PX: Final = 16_384
"""Chromium draws no larger bitmap. Device pixels."""
MAX_AREA_PX: Final = 2**26

_EXPRESSIONS: Final[dict[str, str]] = {
    "title": "document.title",
    "html": "(document.doctype ? new XMLSerializer().serializeToString(document.doctype) + '\\n' : '')"
    " + (document.documentElement?.outerHTML ?? '')",
    "text": "document.body?.innerText ?? document.documentElement?.textContent ?? ''",
}


def rendered(page: Page, call: Capture) -> dict[str, Any]:
    """Give the fields of the result by name: the formats asked for, the address and the title."""
    fields: dict[str, Any] = {}
    for each in dict.fromkeys(call.formats):
        if each == "pdf":
            fields[each] = _pdf(page)
        elif each not in _EXPRESSIONS:
            fields[each] = _picture(page, each, call)
    return {**fields, **page.look({name: _EXPRESSIONS[name] for name in _looked_for(call.formats)})}


def _looked_for(formats: Sequence[Format]) -> list[str]:
    return ["title", *(each for each in ("html", "text") if each in formats)]


def fits(viewport: Viewport) -> bool:
    """Say whether Chromium can draw a window of that size."""
    width, height = viewport.width * viewport.scale, viewport.height * viewport.scale
    return max(width, height) <= MAX_SIDE_PX and width * height <= MAX_AREA_PX


def _picture(page: Page, form: str, call: Capture) -> bytes:
    parameters: Reply = {"format": form}
    if call.full_page:
        parameters |= {"captureBeyondViewport": True, "clip": _whole(page, call.viewport.scale)}
    return _body(page, "Page.captureScreenshot", parameters)


def _whole(page: Page, scale: float) -> Reply:
    """Give the area of the whole page, as far down as Chromium can draw it."""
    size = page.call("Page.getLayoutMetrics")["cssContentSize"]
    width = min(size["width"], MAX_SIDE_PX / scale)
    height = min(size["height"], MAX_SIDE_PX / scale, MAX_AREA_PX / (width * scale * scale))
    return {"x": 0, "y": 0, "width": width, "height": max(1, int(height)), "scale": 1}


def _pdf(page: Page) -> bytes:
    return _body(page, "Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})


def _body(page: Page, method: str, parameters: Reply) -> bytes:
    return base64.b64decode(page.call(method, parameters)["data"])

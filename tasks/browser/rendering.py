"""What a page is made into: pictures, PDF, markup, text, fields."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gaia.codec import Text
from gaia.contracts.pages import Viewport
from gaia.errors import InvalidCall, NavigationFailed, PageTooLarge
from tasks.browser.devtools import ProtocolError, Reply
from tasks.browser.page import Page, sound

MAX_SIDE_PX: Final = 16_384
"""Chromium draws no larger bitmap. Device pixels."""
MAX_AREA_PX: Final = 2**26
MAX_MATCHES: Final = 10_000

EXPRESSIONS: Final[dict[str, str]] = {
    "title": "document.title",
    "html": "(document.doctype ? new XMLSerializer().serializeToString(document.doctype) + '\\n' : '')"
    " + (document.documentElement?.outerHTML ?? '')",
    "text": "document.body?.innerText ?? document.documentElement?.textContent ?? ''",
}
# Nothing over the limit leaves the page: it would be held several times on its way.
_BOUNDED: Final = "(t => t.length > %d ? {over: t.length} : t)(%s)"

_EXTRACT: Final = """(() => {
    const value = (e, name) => e.nodeType === 1 && name ? e.getAttribute(name) : e.nodeType === 1 ? (e.innerText
        ?? e.textContent) : e.nodeValue;
    const css = (selector, name) => [...document.querySelectorAll(selector)].map(e => value(e, name));
    const xpath = path => {
        const found = document.evaluate(path, document, null, XPathResult.ANY_TYPE, null), all = [];
        if (found.resultType === 1) return [String(found.numberValue)];
        if (found.resultType === 2) return [found.stringValue];
        if (found.resultType === 3) return [String(found.booleanValue)];
        for (let e; (e = found.iterateNext());) all.push(value(e));
        return all;
    };
    const fields = %s, seen = {};
    for (const [name, way, text, attribute] of fields) {
        try { seen[name] = (way === 'css' ? css(text, attribute) : xpath(text)).filter(v => v !== null).slice(0, %d); }
        catch (failure) { return {bad: name}; }
    }
    return {seen};
})()"""
_ATTRIBUTE: Final = re.compile(r"(?P<css>.+)@(?P<name>[A-Za-z_][\w:.-]*)", re.DOTALL)


def fits(viewport: Viewport) -> bool:
    """Say whether Chromium can draw a window of that size."""
    width, height = viewport.width * viewport.scale, viewport.height * viewport.scale
    return max(width, height) <= MAX_SIDE_PX and width * height <= MAX_AREA_PX


async def texts(page: Page, names: Sequence[str], limit_bytes: int) -> dict[str, Any]:
    """Give address, title and what else is asked for, of one moment.

    Raises:
        PageTooLarge: if one is over the limit.
        NavigationFailed, EgressDenied: if the page is none that was allowed.
    """
    wanted = {name: _BOUNDED % (limit_bytes, EXPRESSIONS[name]) for name in dict.fromkeys(("title", *names))}
    seen = await page.look(wanted)
    for name in wanted:
        given = seen.setdefault(name, "")
        if isinstance(given, Mapping) or len(given.encode()) > limit_bytes:
            raise PageTooLarge(f"the page's {name}", limit_bytes)
    return {name: Text(value) if name in names else value for name, value in seen.items()}


async def picture(page: Page, form: str, *, full_page: bool = False, selector: str | None = None) -> bytes:
    """Draw the window, the whole page as far down as Chromium draws it, or one element.

    Raises:
        NavigationFailed: if it cannot be drawn; with `selector`, if nothing matches.
    """
    parameters: Reply = {"format": form}
    if selector is not None:
        parameters |= {"captureBeyondViewport": True, "clip": await _area(page, selector)}
    elif full_page:
        parameters |= {"captureBeyondViewport": True, "clip": await _whole(page)}
    return await _body(page, "Page.captureScreenshot", parameters)


async def pdf(page: Page, *, landscape: bool = False) -> bytes:
    """Print it."""
    given = {"printBackground": True, "preferCSSPageSize": True, "landscape": landscape}
    return await _body(page, "Page.printToPDF", given)


async def extracted(page: Page, fields: Mapping[str, str], operation: str) -> dict[str, tuple[str, ...]]:
    """Give what each selector finds, at most 10 000 of each.

    Raises:
        InvalidCall: if one is no CSS selector or XPath.
    """
    reply = await page.steadily(_EXTRACT % (json.dumps([_way(*each) for each in fields.items()]), MAX_MATCHES))
    found = reply["result"].get("value") or {"bad": ""}
    if "bad" in found:
        raise InvalidCall(operation, f"extract.{found['bad']}", "must be a CSS selector or XPath")
    return {name: tuple(map(sound, values)) for name, values in found["seen"].items()}


def _way(name: str, selector: str) -> tuple[str, str, str, str | None]:
    if selector.startswith(("/", "./", "(")):
        return name, "xpath", selector, None
    found = _ATTRIBUTE.fullmatch(selector)
    return (name, "css", found["css"], found["name"]) if found else (name, "css", selector, None)


async def _whole(page: Page) -> Reply:
    size = (await page.call("Page.getLayoutMetrics"))["cssContentSize"]
    scale = page.scale
    width = min(size["width"], MAX_SIDE_PX / scale)
    height = min(size["height"], MAX_SIDE_PX / scale, MAX_AREA_PX / (width * scale * scale))
    return {"x": 0, "y": 0, "width": width, "height": max(1, int(height)), "scale": 1}


async def _area(page: Page, selector: str) -> Reply:
    script = """(e => { if (!e) return null; const b = e.getBoundingClientRect();
        return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height, scale: 1};
    })(document.querySelector(%s))"""
    found: Reply | None = (await page.steadily(script % json.dumps(selector)))["result"].get("value")
    if not found or not found["width"] or not found["height"]:
        raise NavigationFailed(page.url, "nothing visible matches the selector")
    found["width"], found["height"] = min(found["width"], MAX_SIDE_PX / 4), min(found["height"], MAX_SIDE_PX / 4)
    return found


async def _body(page: Page, method: str, parameters: Reply) -> bytes:
    try:
        return base64.b64decode((await page.call(method, parameters))["data"])
    except ProtocolError as failure:
        raise NavigationFailed(page.url, f"it could not be drawn: {failure}") from None

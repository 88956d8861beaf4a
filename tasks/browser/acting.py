"""Steps on a page: real mouse and key events at elements that are waited for."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

from gaia.contracts.pages import Step
from gaia.errors import StepFailed
from tasks.browser.devtools import ProtocolError, Reply
from tasks.browser.page import AGAIN_S, Page

# Name of a key to its virtual code and the text it gives (UI Events KeyboardEvent key Values).
KEYS: Final[dict[str, tuple[int, str]]] = {
    "Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "Backspace": (8, ""), "Delete": (46, ""),
    "ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, ""),
    "Home": (36, ""), "End": (35, ""), "PageUp": (33, ""), "PageDown": (34, ""), "Space": (32, " "),
}  # fmt: skip

# Gives the middle of the element, or null as long as it is not there, not visible or moves.
_POINT: Final = """(async () => {
    const e = document.querySelector(%s);
    if (!e) return null;
    e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
    const a = e.getBoundingClientRect();
    await new Promise(next => setTimeout(next, 16));
    const b = e.getBoundingClientRect();
    if (!b.width || !b.height || a.x !== b.x || a.y !== b.y) return null;
    if (getComputedStyle(e).visibility !== 'visible' || e.disabled) return null;
    const x = b.x + b.width / 2, y = b.y + b.height / 2, top = document.elementFromPoint(x, y);
    return top && (e.contains(top) || top.contains(e)) ? {x, y} : null;
})()"""
_FOCUS: Final = """(e => {
    if (!e) return null;
    e.focus();
    if (e.select) e.select();
    else if (e.isContentEditable) getSelection().selectAllChildren(e);
    else return false;
    return true;
})(document.querySelector(%s))"""
_SELECT: Final = """(e => {
    if (!e || !e.options) return null;
    const found = [...e.options].find(o => o.value === %s || o.label === %s);
    if (!found) return false;
    found.selected = true;
    e.dispatchEvent(new Event('input', {bubbles: true}));
    e.dispatchEvent(new Event('change', {bubbles: true}));
    return true;
})(document.querySelector(%s))"""
_THERE: Final = "document.querySelector(%s) !== null || null"
_INTO_VIEW: Final = "(e => { if (!e) return null; e.scrollIntoView(); return true; })(document.querySelector(%s))"


async def act(page: Page, steps: Sequence[Step]) -> None:
    """Do the steps, then wait until the page, or the one they led to, has loaded.

    Raises:
        StepFailed: with the number of the step.
        NavigationFailed, EgressDenied, PageCrashed: of the page.
    """
    for number, step in enumerate(steps):
        try:
            async with asyncio.timeout(step.timeout_s) as time:
                await _DONE[step.action](page, step)
        except _Unfit as failure:
            raise StepFailed(number, step.action, str(failure), "") from None
        except ProtocolError as failure:
            raise StepFailed(number, step.action, f"Chromium refused it: {failure}", "") from None
        except TimeoutError:
            if not time.expired():
                raise
            reason = f"nothing visible matched its selector within {step.timeout_s:g} s"
            if step.selector is None:
                reason = f"it was not done within {step.timeout_s:g} s"
            raise StepFailed(number, step.action, reason, "") from None
    if steps:
        await page.wait()


class _Unfit(Exception):  # noqa: N818 - a finding; the step's number is added above
    """The element cannot be used so."""


async def _found(page: Page, expression: str) -> Any:
    """Evaluate until the value is not null, or the step's time is over."""
    while True:
        reply = await page.steadily(expression)
        if "exceptionDetails" in reply:
            raise _Unfit("its selector is no CSS selector")
        if (value := reply["result"].get("value")) is not None:
            return value
        await asyncio.sleep(AGAIN_S)


async def _navigate(page: Page, step: Step) -> None:
    await page.load(step.url or "")
    await page.wait()


async def _click(page: Page, step: Step) -> None:
    at = await _found(page, _POINT % json.dumps(step.selector))
    for kind, buttons in (("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)):
        event: Reply = {"type": kind, "x": at["x"], "y": at["y"], "buttons": buttons}
        if buttons or kind == "mouseReleased":
            event |= {"button": "left", "clickCount": 1}
        await page.call("Input.dispatchMouseEvent", event)


async def _type(page: Page, step: Step) -> None:
    if not await _found(page, _FOCUS % json.dumps(step.selector)):
        raise _Unfit("nothing can be typed there")
    if step.text:
        await page.call("Input.insertText", {"text": step.text})
    else:
        await _key(page, "Delete")


async def _press(page: Page, step: Step) -> None:
    if step.selector is not None:
        await _found(page, _FOCUS % json.dumps(step.selector))
    await _key(page, step.text or "")


async def _key(page: Page, name: str) -> None:
    if name not in KEYS and len(name) != 1:
        raise _Unfit(f"there is no key {name!r}")
    code, text = KEYS.get(name, (0, name))
    if len(name) == 1 and name.isascii() and name.isalnum():
        code = ord(name.upper())  # the virtual code of a letter or digit is its own
    event: Reply = {"key": " " if name == "Space" else name, "code": name if name in KEYS else ""}
    event |= {"windowsVirtualKeyCode": code, **({"text": text} if text else {})}
    await page.call("Input.dispatchKeyEvent", {"type": "keyDown" if text else "rawKeyDown", **event})
    event.pop("text", None)
    await page.call("Input.dispatchKeyEvent", {"type": "keyUp", **event})


async def _select(page: Page, step: Step) -> None:
    text = json.dumps(step.text)
    if not await _found(page, _SELECT % (text, text, json.dumps(step.selector))):
        raise _Unfit("it has no such option")


async def _wait(page: Page, step: Step) -> None:
    if step.selector is not None:
        await _found(page, _THERE % json.dumps(step.selector))
    else:
        await page.wait()


async def _scroll(page: Page, step: Step) -> None:
    if step.selector is not None:
        await _found(page, _INTO_VIEW % json.dumps(step.selector))
    else:
        await page.steadily(f"scrollBy({step.dx:d}, {step.dy:d})")


_DONE: Final = {
    "navigate": _navigate,
    "click": _click,
    "type": _type,
    "press": _press,
    "select": _select,
    "wait": _wait,
    "scroll": _scroll,
}

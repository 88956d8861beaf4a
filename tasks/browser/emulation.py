"""What a page is told of its browser: window, device, locale, timezone, colours, headers, cookies, what is blocked."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gaia.contracts.pages import Context, Cookie, Viewport
from gaia.errors import InvalidCall
from tasks.browser.devtools import ProtocolError, Reply
from tasks.browser.page import Page

PHONE: Final = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.0.0 Mobile Safari/537.36"
)
TABLET: Final = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.0.0 Safari/537.36"
)


@dataclass(frozen=True)
class Screen:
    """A device: its window in CSS pixels, its scale, its user agent (None: Chromium's own)."""

    width: int
    height: int
    scale: float
    user_agent: str | None = None


DEVICES: Final = {
    "desktop": Screen(1920, 1080, 1.0),
    "laptop": Screen(1440, 900, 2.0),
    "phone": Screen(412, 915, 2.625, PHONE),
    "small-phone": Screen(360, 640, 3.0, PHONE),
    "tablet": Screen(800, 1280, 2.0, TABLET),
}


async def emulate(page: Page, context: Context, viewport: Viewport, operation: str) -> None:
    """Set all of it on a blank page, in one exchange.

    Raises:
        InvalidCall: if Chromium knows no such locale or timezone.
    """
    commands = _commands(page, context, viewport)
    page.serve(context)
    outcomes = await asyncio.gather(*(page.call(*each) for each in commands), return_exceptions=True)
    for (method, _), outcome in zip(commands, outcomes, strict=True):
        if isinstance(outcome, ProtocolError):
            raise InvalidCall(operation, "context", f"{method.partition('.')[2]} was refused: {outcome}")
        if isinstance(outcome, BaseException):
            raise outcome


def _commands(page: Page, context: Context, viewport: Viewport) -> list[tuple[str, Reply]]:
    device = DEVICES.get(context.device or "", Screen(viewport.width, viewport.height, viewport.scale))
    page.scale = device.scale
    touch = device.user_agent is not None
    metrics = {"width": device.width, "height": device.height, "deviceScaleFactor": device.scale, "mobile": touch}
    commands: list[tuple[str, Reply]] = [("Emulation.setDeviceMetricsOverride", metrics)]
    if touch:
        commands.append(("Emulation.setTouchEmulationEnabled", {"enabled": True}))
    agent = context.user_agent or (device.user_agent or "").format(page.major_version)
    if agent or context.locale:
        words = {"userAgent": agent or page.user_agent}
        commands.append(
            ("Network.setUserAgentOverride", words | ({"acceptLanguage": context.locale} if context.locale else {}))
        )
    if context.locale:
        commands.append(("Emulation.setLocaleOverride", {"locale": context.locale}))
    if context.timezone:
        commands.append(("Emulation.setTimezoneOverride", {"timezoneId": context.timezone}))
    if context.color_scheme:
        features = [{"name": "prefers-color-scheme", "value": context.color_scheme}]
        commands.append(("Emulation.setEmulatedMedia", {"features": features}))
    if context.headers or context.block:
        commands.append(("Fetch.enable", {}))
    return commands


def cookie_parameters(cookies: Sequence[Cookie], url: str | None) -> list[Reply]:
    """Give cookies as Chromium takes them; one without a domain is of the host of the address."""
    found = []
    for each in cookies:
        domain = each.domain or (urlsplit(url).hostname if url else None) or "localhost"
        given: Reply = {
            "name": each.name,
            "value": each.value,
            "domain": domain,
            "path": each.path,
            "secure": each.secure,
            "httpOnly": each.http_only,
        }
        if each.expires_s is not None:
            given["expires"] = each.expires_s
        if each.same_site is not None:
            given["sameSite"] = each.same_site
        found.append(given)
    return found

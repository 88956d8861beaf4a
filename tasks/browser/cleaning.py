"""Making a used page blank again: what it stored is removed, or the page is given up."""

import asyncio
from typing import Final

from gaia.errors import BrowserUnavailable, GaiaError
from tasks.browser.devtools import ProtocolError
from tasks.browser.instance import Instance
from tasks.browser.page import Page

CLEAN_S: Final = 5.0
DISPOSE_S: Final = 10.0
BLANK: Final = frozenset({"", "://", "null"})


async def cleaned(page: Page) -> bool:
    """Remove cookies, storage, cache and history, and leave the page; say whether that is certain.

    It is not for a page that was of more than one origin: session storage is reached from a frame of its origin alone.
    """
    origins, devtools = page.origins - BLANK, page.instance.devtools
    if len(origins) > 1 or page.crashed:
        return False
    try:
        async with asyncio.timeout(CLEAN_S):
            if origins:
                await page.evaluate("sessionStorage.clear()")
            await page.call("Page.navigate", {"url": "about:blank"})
            # Only what has become the tab's page can be asked for its history.
            await page.wait()
            await asyncio.gather(
                devtools.call("Storage.clearCookies", {"browserContextId": page.context}),
                page.call("Network.clearBrowserCache"),
                page.call("Page.resetNavigationHistory"),
                page.call("Fetch.disable"),
                page.call("Runtime.disable"),
                page.call("Network.setUserAgentOverride", {"userAgent": page.user_agent}),
                page.call("Emulation.setEmulatedMedia", {"features": []}),
                page.call("Emulation.setTouchEmulationEnabled", {"enabled": False}),
                page.call("Emulation.setLocaleOverride", {}),
                page.call("Emulation.setTimezoneOverride", {"timezoneId": ""}),
                *(page.call("Storage.clearDataForOrigin", {"origin": e, "storageTypes": "all"}) for e in origins),
            )
    except (GaiaError, ProtocolError, TimeoutError):
        return False
    page.begin_anew()
    return True


async def disposed(instance: Instance, context: str | None) -> None:
    """Dispose of a context with all its pages."""
    try:
        async with asyncio.timeout(DISPOSE_S):
            await instance.devtools.call("Target.disposeBrowserContext", {"browserContextId": context})
    except (BrowserUnavailable, ProtocolError):
        pass
    except TimeoutError:
        # A browser that cannot even close a page serves no one; it is replaced.
        instance.devtools.hang_up()

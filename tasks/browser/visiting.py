"""What the operations do in the loop: one coroutine each."""

import asyncio
import json
from contextlib import ExitStack, suppress
from typing import Any, Final

from config.settings import Browser
from gaia.contracts import browser as contracts
from gaia.contracts.pages import Cookie
from gaia.errors import (
    BrowserUnavailable,
    GaiaError,
    InvalidCall,
    InvalidExtension,
    PageCrashed,
    PageTimedOut,
    PoolExhausted,
    ScriptFailed,
)
from tasks.browser import acting, extensions, rendering
from tasks.browser.bound import Bound
from tasks.browser.devtools import ProtocolError, Reply
from tasks.browser.emulation import cookie_parameters, emulate
from tasks.browser.page import Page
from tasks.browser.pool import Pool
from tasks.browser.sessions import Session, Sessions

ALIVE_S: Final = 1.0


async def captured(pool: Pool, settings: Browser, call: contracts.Capture, bound: Bound) -> contracts.Captured:
    """Capture; once more if the page or its browser died."""
    async with bound.running(places=settings.max_tabs):
        try:
            return await _captured_once(pool, settings, call, bound)
        except (PageCrashed, BrowserUnavailable):
            if not pool.instances and not pool.counters["launches"]:
                raise  # it never started
            pool.happened("retries")
        return await _captured_once(pool, settings, call, bound)


async def _captured_once(pool: Pool, settings: Browser, call: contracts.Capture, bound: Bound) -> contracts.Captured:
    reuse = call.isolation == "reuse"
    page = await pool.take(call.tenant, bound, reuse=reuse)
    whole = False
    try:
        # Its failures are illustrated while the page is there; what is left of the time is the outer bound's.
        async with bound.illustrating(page):
            found = await _captured_from(page, settings, call)
        whole = True
        return found
    finally:
        await asyncio.shield(pool.give_back(page, call.tenant, reusable=reuse and whole))


async def _captured_from(page: Page, settings: Browser, call: contracts.Capture) -> contracts.Captured:
    await emulate(page, call.context, call.viewport, call.OPERATION)
    if "console" in call.formats:
        await page.record_console()
    if call.context.cookies:
        await _set_cookies(page, call.context.cookies, call.url, call.OPERATION)
    await _check_selector(page, call.wait_for, call.OPERATION)
    if call.url is not None:
        await page.load(call.url)
    else:
        await page.show(call.html or "")
    await page.wait(call.wait_for, call.until)
    await acting.act(page, call.steps)
    fields: dict[str, Any] = {}
    for each in dict.fromkeys(call.formats):
        if each == "pdf":
            fields[each] = await rendering.pdf(page)
        elif each in {"png", "jpeg", "webp"}:
            fields[each] = await rendering.picture(page, each, full_page=call.full_page)
    if call.extract:
        fields["extracted"] = await rendering.extracted(page, call.extract, call.OPERATION)
    names = [each for each in call.formats if each in {"html", "text"}]
    fields |= await rendering.texts(page, names, settings.text_bytes)
    if "console" in call.formats:
        fields["console"] = tuple(page.console)
    return contracts.Captured(status=page.status, **fields)


async def _check_selector(page: Page, selector: str | None, operation: str) -> None:
    """Refuse what is no CSS selector, before any page is visited."""
    if selector is None:
        return
    if "exceptionDetails" in await page.evaluate(f"document.querySelector({json.dumps(selector)})"):
        raise InvalidCall(operation, "wait_for", "must be a CSS selector")


async def _set_cookies(page: Page, cookies: tuple[Cookie, ...], url: str | None, operation: str) -> None:
    given: Reply = {"cookies": cookie_parameters(cookies, url)}
    if page.context is not None:
        given["browserContextId"] = page.context
    try:
        await page.instance.devtools.call("Storage.setCookies", given)
    except ProtocolError as failure:
        raise InvalidCall(operation, "cookies", f"were refused: {failure}") from None


# --- sessions


async def opened(
    pool: Pool, sessions: Sessions, settings: Browser, call: contracts.Open, leases: ExitStack, bound: Bound
) -> contracts.Opened:
    """Open a session; its leases are its own from then on."""
    if len(sessions.all) >= settings.max_sessions:
        raise PoolExhausted("browser sessions", settings.max_sessions, 0.0)
    async with bound.running(places=settings.max_tabs):
        if call.extensions:
            page = await _own_page(pool, call, bound)
        else:
            page = await pool.take(call.tenant, bound)
        session = Session(
            id=sessions.new_id(),
            tenant=call.tenant,
            given=call.context,
            viewport=call.viewport,
            idle_s=call.idle_s,
            instance=page.instance,
            context=page.context,
            owns_instance=call.extensions,
        )
        try:
            tab = await sessions.open(page, session, bound)
            if call.context.cookies:
                await _set_cookies(page, call.context.cookies, None, call.OPERATION)
            sessions.keep(session, tab, leases)
        except BaseException:
            await asyncio.shield(_given_up(pool, sessions, session, page))
            raise
        return contracts.Opened(session.id, tab)


async def _own_page(pool: Pool, call: contracts.Open, bound: Bound) -> Page:
    await pool.reserve(call.tenant, bound)
    try:
        instance = await pool.own_instance()
        try:
            await instance.devtools.call("Browser.setDownloadBehavior", {"behavior": "deny"})
            return await pool.open(instance, None)
        except BaseException:
            await asyncio.shield(pool.end(instance))
            raise
    except BaseException:
        pool.unreserve(call.tenant)
        raise


async def _given_up(pool: Pool, sessions: Sessions, session: Session, page: Page) -> None:
    if session.entered:
        await sessions.close(session.id, "it could not be opened")
        return
    sessions.forget_id(session.id)
    if session.owns_instance:
        await pool.end(session.instance)
        pool.unreserve(session.tenant)
    else:
        await pool.give_back(page, session.tenant)


async def state(sessions: Sessions, session_id: str) -> contracts.SessionState:
    """Describe one."""
    return await sessions.state(sessions.get(session_id))


async def states(sessions: Sessions) -> contracts.Sessions:
    """Describe all."""
    return contracts.Sessions(tuple([await sessions.state(each) for each in [*sessions.all.values()]]))


async def tenant(sessions: Sessions, session_id: str) -> str | None:
    """Give whose it is."""
    return sessions.get(session_id).tenant


async def tab_opened(
    sessions: Sessions, call: contracts.OpenTab, leases: ExitStack, bound: Bound
) -> contracts.Navigated:
    """Open one more tab; its lease is its own from then on."""
    session = sessions.get(call.id)
    session.busy += 1
    try:
        async with bound.running():
            name, page = await sessions.open_tab(session, bound)
            try:
                async with bound.illustrating(page):
                    if call.url is not None:
                        await page.load(call.url)
                        await page.wait()
                    opened = await _navigated(name, page)
            except BaseException:
                await asyncio.shield(sessions.close_tab(session, name))
                raise
            sessions.keep(session, name, leases)
            return opened
    finally:
        session.busy -= 1


async def tab_closed(sessions: Sessions, call: contracts.CloseTab) -> bool:
    """Close one."""
    return await sessions.close_tab(sessions.get(call.id), call.tab)


async def navigated(sessions: Sessions, call: contracts.Navigate, bound: Bound) -> contracts.Navigated:
    """Go to an address."""
    async with sessions.using(call.id, call.tab) as (_, name, page), bound.running(page), bound.illustrating(page):
        await _check_selector(page, call.wait_for, call.OPERATION)
        await page.load(call.url)
        await page.wait(call.wait_for, call.until)
        return await _navigated(name, page)


async def _navigated(name: str, page: Page) -> contracts.Navigated:
    seen = await page.look({"title": rendering.EXPRESSIONS["title"]})
    return contracts.Navigated(name, seen["url"], str(seen.get("title", "")), page.status)


async def acted(sessions: Sessions, call: contracts.Act, bound: Bound) -> contracts.Acted:
    """Do steps."""
    async with sessions.using(call.id, call.tab) as (_, name, page), bound.running(page), bound.illustrating(page):
        await acting.act(page, call.steps)
        seen = await page.look({"title": rendering.EXPRESSIONS["title"]})
        return contracts.Acted(name, seen["url"], str(seen.get("title", "")), len(call.steps))


async def evaluated(sessions: Sessions, call: contracts.Evaluate, bound: Bound) -> contracts.Evaluated:
    """Evaluate among the page's own scripts."""
    async with sessions.using(call.id, call.tab) as (session, name, page):
        try:
            async with bound.running(page), bound.illustrating(page):
                try:
                    reply = await page.evaluate_in_its_own(call.expression)
                except ProtocolError as failure:
                    raise ScriptFailed(str(failure), "") from None
                if "exceptionDetails" in reply:
                    details = reply["exceptionDetails"]
                    reason = details.get("exception", {}).get("description") or details.get("text", "")
                    raise ScriptFailed(str(reason)[:2000], "")
                return contracts.Evaluated(_sound_json(reply["result"].get("value")))
        except PageTimedOut:
            if not await _recovered(page):
                await sessions.close_tab(session, name)
            raise


async def _recovered(page: Page) -> bool:
    """End a script that never returns; say whether the page answers again."""
    with suppress(GaiaError, ProtocolError, TimeoutError):
        async with asyncio.timeout(ALIVE_S):
            await page.call("Runtime.terminateExecution")
            await page.call("Runtime.evaluate", {"expression": "1"})
            return True
    return False


def _sound_json(value: Any) -> Any:
    return json.loads(json.dumps(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


async def extracted(sessions: Sessions, call: contracts.Extract, bound: Bound) -> contracts.Extracted:
    """Take fields."""
    async with sessions.using(call.id, call.tab) as (_, _, page), bound.running(page), bound.illustrating(page):
        return contracts.Extracted(await rendering.extracted(page, call.extract, call.OPERATION))


async def shot(sessions: Sessions, call: contracts.Screenshot, bound: Bound) -> contracts.Shot:
    """Draw."""
    async with sessions.using(call.id, call.tab) as (_, _, page), bound.running(page), bound.illustrating(page):
        await page.look({})
        body = await rendering.picture(page, call.format, full_page=call.full_page, selector=call.selector)
        return contracts.Shot(body, call.format)


async def printed(sessions: Sessions, call: contracts.Pdf, bound: Bound) -> contracts.Printed:
    """Print."""
    async with sessions.using(call.id, call.tab) as (_, _, page), bound.running(page), bound.illustrating(page):
        await page.look({})
        return contracts.Printed(await rendering.pdf(page, landscape=call.landscape))


async def contents(
    sessions: Sessions, call: contracts.Content, limit_bytes: int, bound: Bound
) -> contracts.PageContent:
    """Take markup, text, and the console since the last time."""
    async with sessions.using(call.id, call.tab) as (_, _, page), bound.running(page), bound.illustrating(page):
        seen = await rendering.texts(page, ("html", "text"), limit_bytes)
        lines = tuple(page.console)
        page.console.clear()
        return contracts.PageContent(**seen, console=lines)


async def cookies(sessions: Sessions, call: contracts.Cookies) -> contracts.CookieJar:
    """Remove, set, give."""
    session = sessions.get(call.id)
    devtools = session.instance.devtools
    where: Reply = {} if session.context is None else {"browserContextId": session.context}
    try:
        if call.clear:
            await devtools.call("Storage.clearCookies", where)
        if call.add:
            await devtools.call("Storage.setCookies", {"cookies": cookie_parameters(call.add, None), **where})
        found = (await devtools.call("Storage.getCookies", where))["cookies"]
    except ProtocolError as failure:
        raise InvalidCall(call.OPERATION, "add", f"was refused: {failure}") from None
    return contracts.CookieJar(tuple(map(_cookie, found)))


def _cookie(given: Reply) -> Cookie:
    return Cookie(
        name=given["name"],
        value=given["value"],
        domain=given["domain"],
        path=given["path"],
        expires_s=given["expires"] if given.get("expires", -1) >= 0 else None,
        http_only=given["httpOnly"],
        secure=given["secure"],
        same_site=given.get("sameSite"),
    )


async def extension_loaded(
    pool: Pool, sessions: Sessions, call: contracts.LoadExtension, archive: bytes, bound: Bound
) -> contracts.ExtensionLoaded:
    """Unpack an extension into the browser's own directory, and load it."""
    session = sessions.get(call.id)
    if not session.owns_instance:
        raise InvalidCall(call.OPERATION, "id", "is of a session opened without extensions")
    session.busy += 1
    try:
        async with bound.running():
            instance, number = session.instance, session.next_extension
            if number >= extensions.MAX_EXTENSIONS:
                raise InvalidExtension(f"a session takes {extensions.MAX_EXTENSIONS}, loaded or refused")
            session.next_extension += 1
            folder, name = await asyncio.to_thread(extensions.laid_down, archive, instance.home, instance.owner, number)
            try:
                reply = await instance.devtools.call("Extensions.loadUnpacked", {"path": str(folder)})
            except ProtocolError as failure:
                raise InvalidExtension(str(failure).replace(str(folder), "it")) from None
            if reply["id"] != extensions.identity(folder):
                await sessions.close(session.id, "an extension took another identity")
                raise InvalidExtension("Chromium gave it another identity than the one that may read no files")
            session.extensions.append(reply["id"])
            pool.happened("extensions_loaded")
            return contracts.ExtensionLoaded(reply["id"], name)
    finally:
        session.busy -= 1

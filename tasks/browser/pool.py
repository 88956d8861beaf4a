"""The browsers of a worker and their tabs: started on demand, opened ahead, replaced when worn or dead.

A `Pool` owns every Chromium it started. It lives in one event loop, so nothing here takes a lock. When the worker dies,
each browser sees its pipe close and ends itself.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from config.settings import Browser
from gaia.errors import BrowserUnavailable, GaiaError, PoolExhausted
from tasks import metrics
from tasks.browser import cleaning, memory
from tasks.browser.bound import Bound
from tasks.browser.devtools import ProtocolError
from tasks.browser.instance import Instance
from tasks.browser.page import Page
from tasks.egress.proxy import Proxy

LOOK_S: Final = 1.0
IDLE_S: Final = 120.0
"""A browser without a tab in use is ended after that, but for the last one; a tab kept for its tenant, too."""

log = logging.getLogger(__name__)

EVENTS: Final = (
    *("launches", "recycled", "browser_crashes", "tab_crashes", "tabs_opened", "reused", "warm", "retries"),
    *("sessions_opened", "sessions_expired", "extensions_loaded", "protocol_errors", "over_memory"),
)

Launch = Callable[[int | None], Awaitable[Instance]]
"""Starts a browser; given a proxy's port, one that can load extensions."""


class Pool:
    """Lends tabs. To be used in its loop alone."""

    def __init__(self, launch: Launch, settings: Browser, proxy: Callable[[], Proxy]) -> None:
        """Start nothing yet."""
        self._launch = launch
        self._settings = settings
        self._proxy = proxy
        self.instances: list[Instance] = []
        self.used = 0
        self._owned = 0
        self.by_tenant: Counter[str | None] = Counter()
        self.counters: Counter[str] = Counter(dict.fromkeys(EVENTS, 0))
        for each in EVENTS:
            metrics.BROWSER_EVENTS.labels(each)  # a counter that begins with 1 shows no increase
        self.peaks: Counter[str] = Counter()
        self.sessions: Callable[[], int] = lambda: 0
        self.each_look: list[Callable[[], Awaitable[None]]] = []
        self._warm: list[Page] = []
        self._idle: defaultdict[str | None, list[Page]] = defaultdict(list)
        self._changed = asyncio.Condition()
        self._launching: asyncio.Task[Instance] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watching = False
        self._refilling = False
        self._closed = False
        self.clock: Callable[[], float] = time.monotonic

    # --- lending

    async def take(self, tenant: str | None, bound: Bound, *, reuse: bool = False) -> Page:
        """Lend a page in a context of its own, or with `reuse` one that the tenant used before; `give_back` follows.

        Raises:
            BrowserUnavailable, NotConfigured, InvalidSetting: if no browser could be started.
        """
        await self.reserve(tenant, bound)
        try:
            bound.waits_for_place = True  # every browser may be full, too
            page = await self._page(tenant, reuse=reuse)
            bound.waits_for_place = False
        except BaseException:
            self.unreserve(tenant)
            raise
        self.behind(self._refill())
        return page

    async def give_back(self, page: Page, tenant: str | None, *, reusable: bool = False) -> None:
        """Take a page back: cleaned for its tenant's next use, or disposed of with its context."""
        try:
            kept = reusable and not self._closed and not self._worn(page.instance) and await cleaning.cleaned(page)
            if kept and self._sound(page):  # it may have been retired meanwhile
                page.rested_at = self.clock()
                self._idle[tenant].append(page)
                self._notify()
            else:
                await self.dispose(page)
        finally:
            self.unreserve(tenant)

    async def reserve(self, tenant: str | None, bound: Bound) -> None:
        """Take a place for a tab, waiting for one."""
        if self._closed:
            raise BrowserUnavailable("the worker is stopping")
        self._watch()
        most = self._settings.tenant_tabs
        bound.waits_for_place = True
        async with self._changed:
            await self._changed.wait_for(
                lambda: self.used < self._settings.max_tabs and (most is None or self.by_tenant[tenant] < most)
            )
            self.used += 1
            self.by_tenant[tenant] += 1
        bound.waits_for_place = False
        self._count()

    def unreserve(self, tenant: str | None) -> None:
        """Give a place back. It waits for nothing, so that no cancel can come in between."""
        self.used -= 1
        self.by_tenant[tenant] -= 1
        if self.by_tenant[tenant] <= 0:
            del self.by_tenant[tenant]
        self._count()
        self._notify()

    def _notify(self) -> None:
        async def tell() -> None:
            async with self._changed:
                self._changed.notify_all()

        self.behind(tell())

    async def own_instance(self) -> Instance:
        """Start a browser that can load extensions, for one session alone; `end` ends it.

        Raises:
            PoolExhausted: if as many run as may: one browser is left for everyone else.
        """
        most = self._settings.max_instances - 1
        if self._owned >= most or not self._room_beside(self._owned):
            raise PoolExhausted("browsers of one session", most, 0.0)
        self._owned += 1
        try:
            instance = await self._launch(self._proxy().port)
        except BaseException:
            self._owned -= 1
            raise
        instance.retiring = instance.owned = True
        self._enter(instance)
        return instance

    def _room_beside(self, owned: int) -> bool:
        """Say whether one more browser may start, one that nobody uses given up for it if need be."""
        live = [each for each in self.instances if not each.retiring]
        if owned + len(live) < self._settings.max_instances:
            return True
        unused = Counter(id(page.instance) for page in self._unused())
        spare = next((each for each in live if each.tabs == unused[id(each)]), None)
        if spare is not None:
            self._retire(spare)
        return spare is not None

    async def open(self, instance: Instance, context: str | None) -> Page:
        """Open one more page in a context, which binds it to its browser, full or not."""
        instance.tabs += 1
        try:
            return await self._opened(instance, context)
        except BaseException:
            self.behind(self._left(instance))
            raise

    async def _opened(self, instance: Instance, context: str | None) -> Page:
        """Open a page in a seat that has been taken."""
        page = Page(instance, self._proxy(), context)
        instance.served += 1
        try:
            await page.open()
        except ProtocolError as failure:
            raise BrowserUnavailable(f"Chromium refused a tab: {failure}") from None
        self.happened("tabs_opened")
        return page

    async def close_page(self, page: Page) -> None:
        """Close one page of a context that lives on."""
        page.abandon()
        with suppress(BrowserUnavailable, ProtocolError, TimeoutError):
            async with asyncio.timeout(cleaning.DISPOSE_S):
                await page.instance.devtools.call("Target.closeTarget", {"targetId": page.target})
        await self._left(page.instance)

    async def dispose(self, page: Page, *, tabs: int = 1) -> None:
        """Dispose of a page's context with its `tabs`."""
        page.abandon()
        instance = page.instance
        await cleaning.disposed(instance, page.context)
        await self._left(instance, tabs)

    async def end(self, instance: Instance) -> None:
        """End a browser."""
        if instance in self.instances:
            self.instances.remove(instance)
            self._owned -= instance.owned
        self._taken_out(lambda each: each.instance is instance)
        await asyncio.shield(instance.close())
        self._notify()

    async def close(self) -> None:
        """End every browser, those in use too."""
        self._closed = True
        if self._launching is not None:
            self._launching.cancel()
            await asyncio.wait([self._launching])
        await asyncio.gather(*(self.end(each) for each in [*self.instances]))

    def happened(self, event: str) -> None:
        """Count."""
        self.counters[event] += 1
        metrics.BROWSER_EVENTS.labels(event).inc()

    def gauges(self) -> dict[str, int]:
        """Give what there is now."""
        idle = sum(map(len, self._idle.values()))
        held = sum(each.memory_bytes for each in self.instances)
        return {
            "instances": len(self.instances),
            "tabs": self.used,
            "warm_tabs": len(self._warm),
            "idle_tabs": idle,
            "memory_bytes": held,
            "sessions": self.sessions(),
        }

    # --- inside

    async def _page(self, tenant: str | None, *, reuse: bool) -> Page:
        idle = self._idle[tenant] if reuse else []
        while idle:
            page = idle.pop()
            if self._sound(page):
                page.instance.served += 1
                self.happened("reused")
                return page
            self.behind(self.dispose(page))
        while self._warm:
            page = self._warm.pop()
            if self._sound(page):
                page.instance.served += 1  # a tab opened ahead counts when it is used
                self.happened("warm")
                return page
            self.behind(self.dispose(page))
        return await self._fresh()

    @staticmethod
    def _sound(page: Page) -> bool:
        return not (page.instance.dead or page.instance.retiring or page.crashed)

    async def _fresh(self) -> Page:
        instance = await self._instance()
        try:
            return await self._apart(instance)
        except BaseException:
            self.behind(self._left(instance))
            raise

    async def _apart(self, instance: Instance) -> Page:
        """Open a page in a context of its own, in a seat that has been taken."""
        port = self._proxy().port
        # `<-loopback>`: without it Chromium goes to loopback past the proxy.
        given = {"disposeOnDetach": True, "proxyServer": f"http://127.0.0.1:{port}", "proxyBypassList": "<-loopback>"}
        try:
            context = (await instance.devtools.call("Target.createBrowserContext", given))["browserContextId"]
        except ProtocolError as failure:
            raise BrowserUnavailable(f"Chromium refused a context: {failure}") from None
        try:
            denied = {"behavior": "deny", "browserContextId": context}
            await instance.devtools.call("Browser.setDownloadBehavior", denied)
            return await self._opened(instance, context)
        except BaseException:
            await asyncio.shield(cleaning.disposed(instance, context))
            raise

    async def _instance(self) -> Instance:
        """Take a seat for one tab in a browser that has one, or in a new one."""
        while True:
            live = [each for each in self.instances if not each.dead and not each.retiring]
            for each in live:
                if self._worn(each):
                    self._retire(each)
            fit = [each for each in live if not each.retiring and each.tabs < self._settings.tabs_per_instance]
            if fit:
                chosen = max(fit, key=lambda each: each.tabs)
                chosen.tabs += 1
                return chosen
            if self._launching is not None or len(live) + self._owned < self._settings.max_instances:
                await self._started()
            elif not await self._shed():
                async with self._changed:
                    await self._changed.wait()

    async def _started(self) -> None:
        if self._launching is None:
            self._launching = asyncio.get_running_loop().create_task(self._start())
            self._launching.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._launching)

    async def _start(self) -> Instance:
        try:
            instance = await self._launch(None)
            self._enter(instance)
            return instance
        finally:
            self._launching = None

    def _enter(self, instance: Instance) -> None:
        self.happened("launches")
        instance.born_at = instance.idle_since = self.clock()
        self.instances.append(instance)
        instance.on_end = lambda: self._ended(instance)
        instance.devtools.on_refusal = lambda: self.happened("protocol_errors")
        instance.on_crash = lambda _: self.happened("tab_crashes")
        self._count()

    def _ended(self, instance: Instance) -> None:
        """Clear up behind a browser that ended by itself."""
        if instance in self.instances and not self._closed:
            self.happened("browser_crashes")
            self.behind(self.end(instance))

    def _worn(self, instance: Instance) -> bool:
        return (
            instance.served >= self._settings.recycle_after
            or self.clock() - instance.born_at >= self._settings.recycle_s
            or instance.memory_bytes >= self._settings.recycle_bytes
        )

    def _retire(self, instance: Instance) -> None:
        """Give a browser no more tabs; it ends with its last one."""
        if instance.retiring:
            return
        instance.retiring = True
        self.happened("recycled")
        for page in self._taken_out(lambda each: each.instance is instance):
            self.behind(self.dispose(page))
        if instance.tabs <= 0:
            self.behind(self.end(instance))

    def _taken_out(self, which: Callable[[Page], bool]) -> list[Page]:
        """Take unused tabs out of the pool; their seats stay taken until each is disposed of."""
        found = [page for page in self._unused() if which(page)]
        self._warm = [page for page in self._warm if page not in found]
        for tenant, pages in [*self._idle.items()]:
            self._idle[tenant] = [page for page in pages if page not in found]
            if not self._idle[tenant]:
                del self._idle[tenant]
        return found

    def _unused(self) -> list[Page]:
        return [*self._warm, *(page for pages in self._idle.values() for page in pages)]

    async def _shed(self) -> bool:
        """Give up one tab that nobody uses, to make room; say whether there was one."""
        for pages in (*self._idle.values(), self._warm):
            if pages:
                await self.dispose(pages.pop())
                return True
        return False

    async def _left(self, instance: Instance, tabs: int = 1) -> None:
        instance.tabs -= tabs
        instance.idle_since = self.clock()
        if not instance.retiring and self._worn(instance):
            self._retire(instance)
        elif instance.tabs <= 0 and not instance.owned and (instance.retiring or instance.dead):
            await self.end(instance)
        self._notify()

    async def _refill(self) -> None:
        """Open tabs ahead in a browser that has room."""
        if self._refilling:
            return
        self._refilling = True
        try:
            with suppress(GaiaError):
                while len(self._warm) < self._settings.warm_tabs and not self._closed and self._has_room():
                    page = await self._fresh()
                    page.instance.served -= 1
                    if self._sound(page):
                        self._warm.append(page)
                    else:
                        await self.dispose(page)
        finally:
            self._refilling = False

    def _has_room(self) -> bool:
        return any(
            not each.dead
            and not each.retiring
            and each.tabs < self._settings.tabs_per_instance
            and not self._worn(each)
            for each in self.instances
        )

    def behind(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self) -> None:
        for kind, value in self.gauges().items():
            metrics.BROWSER_LIVE.labels(kind).set(value)
            self.peaks[kind] = max(self.peaks[kind], value)

    # --- looking after them

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self.behind(self._look_after())

    async def _look_after(self) -> None:
        while not self._closed:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
            except Exception:
                log.exception("looking after the browsers failed; it goes on")

    async def _look(self) -> None:
        for _ in range(await memory.weighed(self.instances, self._settings.page_bytes)):
            self.happened("over_memory")
        now = self.clock()
        for page in self._taken_out(lambda each: each not in self._warm and now - each.rested_at > IDLE_S):
            await self.dispose(page)
        live = [each for each in self.instances if not each.retiring]
        for each in live:
            unused = sum(1 for page in self._unused() if page.instance is each)
            spare = len(live) > 1 and each.tabs == unused and now - each.idle_since > IDLE_S
            if spare or self._worn(each):
                self._retire(each)
                live = [other for other in live if other is not each]
        for look in self.each_look:
            await look()
        self._count()

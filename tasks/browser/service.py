"""Pages in a real Chromium: one method per operation of the `browser` queue.

A `BrowserService` owns the worker's event loop, browsers, sessions, and the proxy below them. All end with the worker.
Methods may be called from many threads; each bounds its work by its scope.
"""

import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any, Final, TypeVar

from config.settings import Browser
from gaia.codec import content
from gaia.contracts import browser as contracts
from gaia.errors import BrowserUnavailable, GaiaError, InvalidCall, LimitExceeded
from tasks.browser import chromium, rendering, visiting
from tasks.browser.bound import Bound
from tasks.browser.instance import Instance
from tasks.browser.loop import Loop
from tasks.browser.pool import Pool
from tasks.browser.sessions import Holder, Sessions
from tasks.egress.pacing import Bandwidth
from tasks.egress.proxy import Dialler, Proxy
from tasks.scope import Later, Scope

T = TypeVar("T")
CLOSE_S: Final = 30.0
LOOK_S: Final = 10.0

Slot = Callable[[Scope, str | None], AbstractContextManager[object]]
"""Holds a slot of the cluster's limits for one tab of a tenant."""


def _no_slot(scope: Scope, tenant: str | None) -> AbstractContextManager[object]:
    del scope, tenant
    return nullcontext()


class BrowserService:
    """Starts its browsers when they are needed."""

    def __init__(
        self,
        *,
        settings: Browser,
        dialler: Dialler,
        holder: Holder,
        slot: Slot = _no_slot,
        keep: Callable[[bytes], str] = lambda _: "",
        bandwidth: Callable[[str], Bandwidth] | None = None,
    ) -> None:
        """Start nothing yet. `keep` stores the picture that an error refers to; `bandwidth` paces bytes of a host."""
        self._settings = settings
        self._dialler = dialler
        self._holder = holder
        self._slot = slot
        self._keep = keep
        self._bandwidth = bandwidth
        self._lock = threading.Lock()
        self._closed = False
        self._proxy: Proxy | None = None
        self.loop = Loop()
        self.pool = Pool(self._launch, settings, self._egress)
        self.sessions = Sessions(self.pool, holder)

    # --- one-shot

    def capture(self, call: contracts.Capture, scope: Scope) -> contracts.Captured:
        """Load a page in a fresh context, act, and capture it; once more if its browser or its process died.

        Raises:
            InvalidCall: if `wait_for` or a field is no selector, or the viewport larger than Chromium draws.
            NavigationFailed, EgressDenied: if the page could not be loaded, or must not be.
            StepFailed, PageCrashed, BodyTooLarge: as they say.
            PageTimedOut, PoolExhausted: if `timeout_s` passed, in the latter case before a tab came free.
            BrowserUnavailable: if no browser starts, or it died under both tries.
        """
        self._check_viewport(call.OPERATION, call.viewport)
        with self._admitted(scope, call.tenant):
            bound = self._bound(scope, call.timeout_s)
            return self._run(visiting.captured(self.pool, self._settings, call, bound), scope, bound)

    # --- sessions

    def open(self, call: contracts.Open, scope: Scope) -> contracts.Opened:
        """Open a session with one blank tab.

        Raises:
            PoolExhausted: if the worker has as many sessions or tabs as it may.
            InvalidCall: if Chromium knows no such locale or timezone.
            NotConfigured: if `extensions` is asked for and there is no full Chromium.
        """
        self._check_viewport(call.OPERATION, call.viewport)
        leases = ExitStack()
        try:
            leases.enter_context(self._admitted(scope, call.tenant))
            bound = self._bound(scope, call.timeout_s)
            work = visiting.opened(self.pool, self.sessions, self._settings, call, leases, bound)
            return self._run(work, scope, bound)
        except BaseException:
            leases.close()
            raise

    def close_session(self, call: contracts.Close, scope: Scope) -> contracts.Closed:
        """Close a session."""
        was_open = self._do(self.sessions.close(call.id, "it was closed"), scope)
        return contracts.Closed(call.id, was_open)

    def status(self, call: contracts.Status, scope: Scope) -> contracts.SessionState:
        """Describe a session; it is not prolonged."""
        return self._do(visiting.state(self.sessions, call.id), scope)

    def list(self, call: contracts.List, scope: Scope) -> contracts.Sessions:
        """Describe all sessions of this worker."""
        del call
        return self._do(visiting.states(self.sessions), scope)

    def open_tab(self, call: contracts.OpenTab, scope: Scope) -> contracts.Navigated:
        """Open one more tab in a session; each takes a slot of the cluster's limits, too."""
        with ExitStack() as leases:
            tenant = self._do(visiting.tenant(self.sessions, call.id), scope)
            leases.enter_context(self._admitted(scope, tenant))
            bound = self._bound(scope, call.timeout_s)
            return self._run(visiting.tab_opened(self.sessions, call, leases, bound), scope, bound)

    def close_tab(self, call: contracts.CloseTab, scope: Scope) -> contracts.TabClosed:
        """Close a tab."""
        return contracts.TabClosed(call.tab, self._do(visiting.tab_closed(self.sessions, call), scope))

    def navigate(self, call: contracts.Navigate, scope: Scope) -> contracts.Navigated:
        """Go to an address, and wait until the page has loaded."""
        return self._visit(visiting.navigated, call, scope)

    def act(self, call: contracts.Act, scope: Scope) -> contracts.Acted:
        """Do steps on a page."""
        return self._visit(visiting.acted, call, scope)

    def evaluate(self, call: contracts.Evaluate, scope: Scope) -> contracts.Evaluated:
        """Evaluate JavaScript; what never returns is ended, with the tab if need be."""
        return self._visit(visiting.evaluated, call, scope)

    def extract(self, call: contracts.Extract, scope: Scope) -> contracts.Extracted:
        """Take fields out of a page."""
        return self._visit(visiting.extracted, call, scope)

    def screenshot(self, call: contracts.Screenshot, scope: Scope) -> contracts.Shot:
        """Take a picture."""
        return self._visit(visiting.shot, call, scope)

    def pdf(self, call: contracts.Pdf, scope: Scope) -> contracts.Printed:
        """Print a page."""
        return self._visit(visiting.printed, call, scope)

    def content(self, call: contracts.Content, scope: Scope) -> contracts.PageContent:
        """Take markup, text and console."""
        bound = self._bound(scope, call.timeout_s)
        return self._run(visiting.contents(self.sessions, call, self._settings.text_bytes, bound), scope, bound)

    def cookies(self, call: contracts.Cookies, scope: Scope) -> contracts.CookieJar:
        """Set, remove and give cookies."""
        return self._do(visiting.cookies(self.sessions, call), scope)

    def load_extension(self, call: contracts.LoadExtension, scope: Scope) -> contracts.ExtensionLoaded:
        """Load an extension into a session that was opened for that.

        Raises:
            InvalidExtension: if Chromium does not take it.
            InvalidCall: if the session was opened without `extensions`.
        """
        bound = self._bound(scope, call.timeout_s)
        work = visiting.extension_loaded(self.pool, self.sessions, call, content(call.extension), bound)
        return self._run(work, scope, bound)

    # --- the worker

    def stats(self, call: contracts.Stats, scope: Scope) -> contracts.BrowserStats:
        """Count."""
        del call, scope
        return contracts.BrowserStats(dict(self.pool.counters), self.pool.gauges(), dict(self.pool.peaks))

    def health(self, call: contracts.Health, scope: Scope) -> contracts.BrowserHealth:
        """Open a blank page, and say whether that worked."""
        reason, path, version = "", "", ""
        try:
            path = str(chromium.find(self._settings.chromium))
            with suppress(IndexError):
                self.capture(contracts.Capture(html="", formats=("text",), timeout_s=call.timeout_s), scope)
                version = self.pool.instances[0].version
        except (GaiaError, Later) as failure:
            scope.check()
            reason = str(failure)
        gauges = self.pool.gauges()
        return contracts.BrowserHealth(
            healthy=not reason,
            reason=reason,
            chromium=path,
            version=version,
            sandbox=not self._settings.no_sandbox,
            instances=gauges["instances"],
            tabs=gauges["tabs"],
            holds=len(self.sessions.all),
        )

    def close(self) -> None:
        """End sessions, kill the browsers with all their processes, remove their profiles, end the proxy."""
        with self._lock:
            already, self._closed = self._closed, True
            proxy, self._proxy = self._proxy, None
        if not already and self.loop.started:
            with suppress(BrowserUnavailable, TimeoutError):
                self.loop.post(self._ended(), CLOSE_S)
        self.loop.close()
        if proxy is not None:
            proxy.close()

    # --- inside

    async def _ended(self) -> None:
        try:
            await self.sessions.close_all()
        finally:
            await self.pool.close()

    def _visit(self, work: Callable[[Sessions, Any, Bound], Coroutine[Any, Any, T]], call: Any, scope: Scope) -> T:
        bound = self._bound(scope, call.timeout_s)
        return self._run(work(self.sessions, call, bound), scope, bound)

    def _run(self, work: Coroutine[Any, Any, T], scope: Scope, bound: Bound) -> T:
        try:
            return self.loop.run(work, scope, bound.whole_s)
        except TimeoutError:
            scope.check()
            raise BrowserUnavailable("Chromium did not answer") from None

    def _do(self, work: Coroutine[Any, Any, T], scope: Scope) -> T:
        try:
            return self.loop.run(work, scope, scope.bound_s(LOOK_S))
        except TimeoutError:
            scope.check()
            raise BrowserUnavailable("Chromium did not answer") from None

    def _bound(self, scope: Scope, timeout_s: float) -> Bound:
        return Bound(scope, timeout_s, self._keep)

    def _admitted(self, scope: Scope, tenant: str | None) -> AbstractContextManager[object]:
        """Hold a slot of the cluster's limits, or give this worker's slot back until there is one."""
        stack = ExitStack()
        try:
            stack.enter_context(self._slot(scope, tenant))
        except LimitExceeded as full:
            raise Later(full.retry_after_s) from None
        return stack

    @staticmethod
    def _check_viewport(operation: str, viewport: contracts.Viewport) -> None:
        if not rendering.fits(viewport):
            raise InvalidCall(
                operation, "viewport", "is too large: at most 16384 device pixels a side and 2**26 in all"
            )

    async def _launch(self, extensions_proxy: int | None) -> Instance:
        if extensions_proxy is None:
            return await Instance.start(chromium.find(self._settings.chromium), self._settings)
        binary = chromium.find_full(self._settings.full_chromium)
        return await Instance.start(binary, self._settings, extensions_proxy=extensions_proxy)

    def _egress(self) -> Proxy:
        with self._lock:
            if self._closed:
                raise BrowserUnavailable("the worker is stopping")
            if self._proxy is None:
                self._proxy = Proxy(self._dialler, bandwidth=self._bandwidth)
            return self._proxy

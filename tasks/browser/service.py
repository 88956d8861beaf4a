"""Pages in a real Chromium: one method per operation of the `browser` queue.

A `BrowserService` owns the worker's warm browser and the proxy below it. Both end with the worker.
"""

import threading

from config.settings import Browser
from gaia.contracts.browser import Capture, Captured
from gaia.errors import BrowserUnavailable, InvalidCall
from tasks.browser import chromium, page, rendering
from tasks.browser.bound import Bound
from tasks.browser.instance import Instance
from tasks.browser.pool import Pool
from tasks.egress.proxy import Dialler, Proxy
from tasks.scope import Scope


class BrowserService:
    """Starts its browser at the first call. To be used from many threads."""

    def __init__(self, *, settings: Browser, dialler: Dialler) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._dialler = dialler
        self._lock = threading.Lock()
        self._closed = False
        self._proxy: Proxy | None = None
        self._pool = Pool(self._launch, size=settings.max_pages, recycle_after=settings.recycle_after)

    def capture(self, call: Capture, scope: Scope) -> Captured:
        """Load a page in a fresh context and capture it.

        Raises:
            InvalidCall: if `wait_for` is no CSS selector, or the viewport is larger than Chromium draws.
            NavigationFailed: if the page could not be loaded.
            EgressDenied: if its address, or one it led to, must not be reached.
            TimedOut, PoolExhausted: if `timeout_s` passed, in the latter case before a page came free.
            BrowserUnavailable: if no browser starts, or it died under the call.
        """
        if not rendering.fits(call.viewport):
            raise InvalidCall(
                call.OPERATION, "viewport", "is too large: at most 16384 device pixels a side and 2**26 in all"
            )
        scope.check()
        bound = Bound(scope, call.timeout_s)
        with self._pool.lend(bound) as instance, page.opened(instance, self._egress(), call.viewport, bound) as opened:
            return _captured(opened, call)

    def close(self) -> None:
        """Kill the browser with all its processes, remove its profile, end the proxy."""
        self._pool.close()
        with self._lock:
            self._closed = True
            proxy, self._proxy = self._proxy, None
        if proxy is not None:
            proxy.close()

    def _launch(self) -> Instance:
        return Instance(chromium.find(self._settings.chromium), self._settings)

    def _egress(self) -> Proxy:
        with self._lock:
            if self._closed:
                raise BrowserUnavailable("the worker is stopping")
            if self._proxy is None:
                self._proxy = Proxy(self._dialler)
            return self._proxy


def _captured(opened: page.Page, call: Capture) -> Captured:
    if call.wait_for is not None:
        opened.check_selector(call.wait_for)
    if call.url is not None:
        opened.load(call.url)
    else:
        opened.show(call.html or "")
    opened.wait(call.wait_for)
    fields = rendering.rendered(opened, call)
    return Captured(status=opened.status, **fields)

"""One page in a browser context of its own: opened, loaded, waited for, looked into, gone."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from gaia import redaction
from gaia.contracts.browser import Viewport
from gaia.errors import BrowserUnavailable, EgressDenied, GaiaError, InvalidCall, NavigationFailed
from tasks.browser.bound import Bound
from tasks.browser.devtools import NoReply, ProtocolError, Reply, SessionClosed
from tasks.browser.instance import Instance
from tasks.egress.proxy import MARK, Proxy

DISPOSE_S: Final = 10.0
AGAIN_S: Final = 0.02
"""Between two tries to look into a page that another one is just replacing."""

_PORTS: Final = {"http": 80, "https": 443}
_TUNNEL_REFUSED: Final = "net::ERR_TUNNEL_CONNECTION_FAILED"

# `complete` comes in the same task as the load event's handlers, so they have run when this is seen. It gives up now
# and then, so that a page whose successor failed is noticed.
_READY: Final = """new Promise(resolve => {
    const end = seen => {
        clearInterval(timer);
        document.removeEventListener('readystatechange', check);
        resolve(seen);
    };
    const check = () => { if (document.readyState === 'complete' && (%s)) end(true); };
    const timer = setInterval(check, 20);
    document.addEventListener('readystatechange', check);
    setTimeout(end, 500, false);
    check();
})"""


@contextmanager
def opened(instance: Instance, proxy: Proxy, viewport: Viewport, bound: Bound) -> Iterator["Page"]:
    """Open a page in a new context, and dispose of the context whatever happens.

    A cancel inside the block ends what waits on the page.
    """
    context = _called(instance, bound, "Target.createBrowserContext", _context(proxy))["browserContextId"]
    try:
        _called(instance, bound, "Browser.setDownloadBehavior", {"behavior": "deny", "browserContextId": context})
        page = Page(instance, proxy, bound, context)
        try:
            with bound.scope.cancelled.calling(page.abandon):
                page.prepare(viewport)
                yield page
        except ProtocolError as failure:
            raise page.failure(str(failure)) from None
        finally:
            page.abandon()
    finally:
        _dispose(instance, context)


def _context(proxy: Proxy) -> Reply:
    # `<-loopback>`: without it Chromium goes to loopback past the proxy.
    return {"disposeOnDetach": True, "proxyServer": f"http://127.0.0.1:{proxy.port}", "proxyBypassList": "<-loopback>"}


def _dispose(instance: Instance, context: str) -> None:
    try:
        instance.devtools.call("Target.disposeBrowserContext", {"browserContextId": context}, timeout_s=DISPOSE_S)
    except (BrowserUnavailable, ProtocolError):
        return
    except NoReply:
        # A browser that cannot even close a page serves no one; the pool replaces it.
        instance.devtools.hang_up()


def _called(instance: Instance, bound: Bound, method: str, parameters: Reply) -> Reply:
    try:
        return instance.devtools.call(method, parameters, timeout_s=bound.left_s())
    except NoReply:
        bound.left_s()
        raise bound.passed() from None
    except ProtocolError as failure:
        raise BrowserUnavailable(f"Chromium refused {method}: {failure}") from None


def _sound(text: str) -> str:
    """Replace lone surrogates: a script can make them, UTF-8 cannot carry them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Page:
    """Commands to one page, each bounded by the call's time, and what its events told."""

    def __init__(self, instance: Instance, proxy: Proxy, bound: Bound, context: str) -> None:
        """Open a blank page in the context."""
        self._instance = instance
        self._devtools = instance.devtools
        self._proxy = proxy
        self._bound = bound
        self._requested: dict[str, Any] = {}
        self._answered: dict[str, Any] = {}
        self._broken: str | None = None
        blank = {"url": "about:blank", "browserContextId": context}
        self._target: str = _called(instance, bound, "Target.createTarget", blank)["targetId"]
        attach = {"targetId": self._target, "flatten": True}
        self._session: str = _called(instance, bound, "Target.attachToTarget", attach)["sessionId"]
        self._devtools.listen(self._session, self._on_event)
        instance.watch(self._target, self._session)

    @property
    def status(self) -> int | None:
        """The HTTP status of the document, None if none came over HTTP."""
        status: int | None = self._answered.get("response", {}).get("status")
        return status

    def abandon(self) -> None:
        """Let go of the page; whoever waits on it is woken."""
        self._instance.forget(self._target)
        self._devtools.release(self._session)

    def call(self, method: str, parameters: Reply | None = None) -> Reply:
        """Send a command to the page and wait for its reply.

        Raises:
            ProtocolError: if the page refuses it.
            NavigationFailed: if the page is gone.
        """
        try:
            return self._devtools.call(method, parameters, session=self._session, timeout_s=self._bound.left_s())
        except NoReply:
            self._bound.left_s()
            raise self._bound.passed() from None
        except SessionClosed:
            self._bound.left_s()
            raise self.failure("the page crashed or closed itself") from None

    def prepare(self, viewport: Viewport) -> None:
        """Set the size of the window, and listen."""
        metrics = {"width": viewport.width, "height": viewport.height, "deviceScaleFactor": viewport.scale}
        commands: list[tuple[str, Reply]] = [
            ("Page.enable", {}),
            # No body is ever asked for, so none needs to be kept.
            ("Network.enable", {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}),
            ("Emulation.setDeviceMetricsOverride", {**metrics, "mobile": False}),
        ]
        for method, given in commands:
            self.call(method, given)

    def load(self, url: str) -> None:
        """Go to an address; returns when its document begins to come.

        Raises:
            NavigationFailed: if none comes.
            EgressDenied: if it, or what it redirects to, must not be reached.
        """
        self._requested = {"request": {"url": url}}
        reply = self.call("Page.navigate", {"url": url})
        if reply.get("errorText"):
            raise self.failure(reply["errorText"])

    def show(self, html: str) -> None:
        """Fill the blank page."""
        self.call("Page.setDocumentContent", {"frameId": self._target, "html": html})

    def check_selector(self, selector: str) -> None:
        """Refuse what is no CSS selector, before any page is visited."""
        if "exceptionDetails" in self._evaluate(f"document.querySelector({json.dumps(selector)})"):
            raise InvalidCall(self._bound.scope.operation, "wait_for", "must be a CSS selector")

    def wait(self, selector: str | None) -> None:
        """Wait until the page has loaded and an element matches the selector; any page that replaces it counts, too."""
        matches = "true" if selector is None else f"document.querySelector({json.dumps(selector)}) !== null"
        while not self._steadily(_READY % matches)["result"].get("value"):
            self._check()

    def look(self, expressions: Mapping[str, str]) -> dict[str, str]:
        """Evaluate expressions, and see that the page is one that was allowed; its `url` comes beside what they give.

        Raises:
            NavigationFailed, EgressDenied: if it is not.
        """
        members = ", ".join(f"{name}: {each}" for name, each in expressions.items())
        reply = self._steadily(f"({{url: location.href, {members}}})")
        self._check()
        seen = {name: _sound(value) for name, value in reply["result"].get("value", {}).items()}
        scheme = urlsplit(seen.get("url", "")).scheme
        if scheme not in {"http", "https", "about"}:
            raise self.failure(f"it led to a page of the scheme {scheme!r}")
        return seen

    def failure(self, reason: str) -> GaiaError:
        """Make the error of a failed navigation: the proxy's own reason, where it was the proxy that refused."""
        url: str = self._requested.get("request", {}).get("url", "about:blank")
        if reason == _TUNNEL_REFUSED or self._marked():
            parts = urlsplit(url)
            refusal = self._proxy.refusal(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
            if isinstance(refusal, EgressDenied):
                return EgressDenied(*refusal.args)
            reason = reason if refusal is None else str(refusal)
        return NavigationFailed(str(redaction.redact(url, "url")), reason)

    # --- inside

    def _steadily(self, expression: str) -> Reply:
        """Evaluate, again if the page is replaced by another meanwhile."""
        while True:
            self._check()
            try:
                return self._evaluate(expression)
            except ProtocolError:
                self._bound.scope.cancelled.wait(min(AGAIN_S, self._bound.left_s()))

    def _evaluate(self, expression: str) -> Reply:
        """Evaluate in a world of our own, where the page's scripts cannot have changed what functions do."""
        world = self.call("Page.createIsolatedWorld", {"frameId": self._target, "worldName": "gaia"})
        parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        return self.call("Runtime.evaluate", {**parameters, "contextId": world["executionContextId"]})

    def _check(self) -> None:
        if self._broken is not None:
            raise self.failure(self._broken)
        if self._marked():
            raise self.failure(f"HTTP status {self.status}")

    def _marked(self) -> bool:
        response = self._answered.get("response", {})
        # Over TLS the header could be the server's own.
        return response.get("url", "").startswith("http:") and any(each.lower() == MARK for each in response["headers"])

    # --- events, in the reading thread

    def _on_event(self, method: str, parameters: Reply) -> None:
        if method == "Page.javascriptDialogOpening":
            # Nobody is there to answer; only the question whether to leave a page has to be affirmed.
            answer = {"accept": parameters["type"] == "beforeunload"}
            self._devtools.tell("Page.handleJavaScriptDialog", answer, self._session)
        elif method == "Network.loadingFailed":
            self._on_failed(parameters)
        elif parameters.get("type") == "Document" and parameters.get("frameId") == self._target:
            if method == "Network.requestWillBeSent":
                self._requested, self._broken = parameters, None
            elif method == "Network.responseReceived":
                self._answered = parameters

    def _on_failed(self, parameters: Reply) -> None:
        number = parameters["requestId"]
        mine = number == self._requested.get("requestId")
        # A document that came in part is shown in part; a download and status 204 leave the page as it is.
        if mine and number != self._answered.get("requestId") and not parameters.get("canceled"):
            self._broken = parameters["errorText"]

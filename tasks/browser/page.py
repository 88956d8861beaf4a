"""One page: loaded, waited for, looked into. Every command is awaited within the bound of the call that runs."""

import asyncio
import base64
import json
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from gaia import redaction
from gaia.contracts.pages import ConsoleLine, Context, Until
from gaia.errors import EgressDenied, GaiaError, NavigationFailed, PageCrashed
from tasks.browser.devtools import ProtocolError, Reply, SessionClosed
from tasks.browser.instance import Instance
from tasks.egress.proxy import MARK, Proxy

AGAIN_S: Final = 0.02
"""Between two tries to look into a page that another one is just replacing."""
QUIET_S: Final = 0.5
MOMENT_S: Final = 2.0
CONSOLE_LINES: Final = 1000
CONSOLE_CHARACTERS: Final = 1024
UNKNOWN_WORLD: Final = "uniqueContextId not found"
OF_THE_WEB: Final = frozenset({"http", "https", "about", "data", "blob", "chrome-error"})
MANY_ORIGINS: Final = 8
"""No more are remembered: a page of more than one is not used again."""

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
    const check = () => { if (%s && (%s)) end(true); };
    const timer = setInterval(check, 20);
    document.addEventListener('readystatechange', check);
    setTimeout(end, 500, false);
    check();
})"""
_STATES: Final[Mapping[str, str]] = {
    "load": "document.readyState === 'complete'",
    "dom": "document.readyState !== 'loading'",
    "idle": "document.readyState === 'complete'",
}


def sound(text: str) -> str:
    """Replace lone surrogates: a script can make them, UTF-8 cannot carry them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Page:
    """Commands to one page, and what its events told."""

    def __init__(self, instance: Instance, proxy: Proxy, context: str | None) -> None:
        """Take the id of the browser context, None for the browser's own; `open` opens the page."""
        self.instance = instance
        self.context = context
        self.crashed = False
        self.target = ""
        self.scale = 1.0
        self.rested_at = 0.0
        self._world: tuple[str, str] | None = None
        self.user_agent = instance.user_agent
        self.major_version = instance.version.partition("/")[2].partition(".")[0]
        self._proxy = proxy
        self._session = ""
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was seen."""
        self.console: deque[ConsoleLine] = deque(maxlen=CONSOLE_LINES)
        self.origins: set[str] = set()
        self._requested: dict[str, Any] = {}
        self._answered: dict[str, Any] = {}
        self._broken: str | None = None
        self._strange = ""
        self._under_way: set[str] = set()
        self._told = Context()
        self._header_origins: set[str] = set()

    async def open(self) -> None:
        """Open a blank page, and listen.

        Raises:
            BrowserUnavailable: if the browser is dead.
            ProtocolError: if it refuses.
        """
        devtools = self.instance.devtools
        blank = {"url": "about:blank"} | ({} if self.context is None else {"browserContextId": self.context})
        with self.instance.expecting():
            self.target = (await devtools.call("Target.createTarget", blank))["targetId"]
        attach = {"targetId": self.target, "flatten": True}
        self._session = (await devtools.call("Target.attachToTarget", attach))["sessionId"]
        devtools.listen(self._session, self._on_event)
        self.instance.watch(self.target, self._session)
        # No body is ever asked for, so none needs to be kept.
        unkept = {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}
        await asyncio.gather(self.call("Page.enable"), self.call("Network.enable", unkept))

    async def record_console(self) -> None:
        """Keep what the page writes from now on, the last 1000 lines."""
        await self.call("Runtime.enable")

    @property
    def status(self) -> int | None:
        """The HTTP status of the document, None if none came over HTTP."""
        status: int | None = self._answered.get("response", {}).get("status")
        return status

    @property
    def url(self) -> str:
        """The address asked for last, without its secrets."""
        return str(redaction.redact(self._requested.get("request", {}).get("url", "about:blank"), "url"))

    def abandon(self) -> None:
        """Let go of the page; whoever waits on it is woken."""
        self.instance.forget(self.target)
        self.instance.devtools.release(self._session)

    def serve(self, context: Context) -> None:
        """Take the headers to send and the types to block."""
        self._told = context

    async def call(self, method: str, parameters: Reply | None = None) -> Reply:
        """Send a command to the page and wait for its reply.

        Raises:
            ProtocolError: if the page refuses it.
            PageCrashed: if the page is gone.
            BrowserUnavailable: if the browser is.
        """
        try:
            return await self.instance.devtools.call(method, parameters, self._session)
        except SessionClosed:
            self.crashed = True
            raise PageCrashed(self.url, "its process ended, or it was closed") from None

    async def load(self, url: str) -> None:
        """Go to an address; returns when its document begins to come.

        Raises:
            NavigationFailed: if none comes.
            EgressDenied: if it, or what it redirects to, must not be reached.
        """
        parts = urlsplit(url)
        self._header_origins.add(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        self._requested, self._answered, self._broken = {"request": {"url": url}}, {}, None
        self._strange = ""
        try:
            reply = await self.call("Page.navigate", {"url": url})
        except ProtocolError as failure:
            raise self.failure(str(failure)) from None
        if reply.get("errorText"):
            raise self.failure(reply["errorText"])

    async def show(self, html: str) -> None:
        """Fill the blank page."""
        await self.call("Page.setDocumentContent", {"frameId": self.target, "html": html})

    async def wait(self, selector: str | None = None, until: Until = "load") -> None:
        """Wait until the page has loaded and an element matches the selector; any page that replaces it counts, too."""
        matches = "true" if selector is None else f"document.querySelector({json.dumps(selector)}) !== null"
        while not (await self.steadily(_READY % (_STATES[until], matches)))["result"].get("value"):
            self.check()
        quiet_since = asyncio.get_running_loop().time()
        while until == "idle" and asyncio.get_running_loop().time() - quiet_since < QUIET_S:
            await asyncio.sleep(AGAIN_S)
            quiet_since = asyncio.get_running_loop().time() if self._under_way else quiet_since

    async def look(self, expressions: Mapping[str, str]) -> dict[str, Any]:
        """Evaluate expressions, and see that the page is one that was allowed; its `url` comes beside what they give.

        Raises:
            NavigationFailed, EgressDenied: if it is not.
        """
        members = ", ".join(f"{name}: {each}" for name, each in expressions.items())
        reply = await self.steadily(f"({{url: location.href, {members}}})")
        self.check()
        given = reply["result"].get("value", {})
        seen = {name: sound(value) if isinstance(value, str) else value for name, value in given.items()}
        scheme = urlsplit(seen.get("url", "")).scheme
        if scheme not in {"http", "https", "about"}:
            raise self.failure(f"it led to a page of the scheme {scheme!r}")
        return seen

    async def steadily(self, expression: str) -> Reply:
        """Evaluate in a world of our own, again if the page is replaced by another meanwhile."""
        while True:
            self.check()
            try:
                return await self.evaluate(expression)
            except ProtocolError:
                await asyncio.sleep(AGAIN_S)

    async def evaluate_in_its_own(self, expression: str) -> Reply:
        """Evaluate among the page's own scripts.

        Raises:
            NavigationFailed: if it is none of the web any more: an extension can lead a tab to pages of the browser,
                whose scripts may do what no extension may.
        """
        given = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        while True:
            self.check()
            world = self._world
            if world is None:
                await asyncio.sleep(AGAIN_S)  # the next page is just taking its place
                continue
            number, origin = world
            if (scheme := urlsplit(origin).scheme) not in {"http", "https", ""}:
                raise self.failure(f"it led to a page of the scheme {scheme!r}")
            try:
                return await self.call("Runtime.evaluate", {**given, "uniqueContextId": number})
            except ProtocolError as failure:
                if UNKNOWN_WORLD not in str(failure) or self._world is world:
                    raise

    async def evaluate(self, expression: str) -> Reply:
        """Evaluate in a world of our own, where the page's scripts cannot have changed what functions do."""
        world = await self.call("Page.createIsolatedWorld", {"frameId": self.target, "worldName": "gaia"})
        parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        return await self.call("Runtime.evaluate", {**parameters, "contextId": world["executionContextId"]})

    async def moment(self, within_s: float) -> bytes | None:
        """Draw the page as it is, for an error; None if that takes longer, or cannot be done."""
        if (picture := await self._drawn_within(within_s / 2)) is not None or self.crashed:
            return picture
        # A script that never returns lets nothing be drawn; a timer would begin it anew.
        self._let_scripts(run=False)
        try:
            self.instance.devtools.tell("Runtime.terminateExecution", {}, self._session)
            return await self._drawn_within(within_s / 2)
        finally:
            self._let_scripts(run=True)

    def _let_scripts(self, *, run: bool) -> None:
        self.instance.devtools.tell("Emulation.setScriptExecutionDisabled", {"value": not run}, self._session)

    async def _drawn_within(self, seconds: float) -> bytes | None:
        with suppress(TimeoutError, GaiaError):
            async with asyncio.timeout(seconds):
                while True:
                    with suppress(ProtocolError):  # another page is just taking its place
                        reply = await self.call("Page.captureScreenshot", {"format": "jpeg", "quality": 60})
                        return base64.b64decode(reply["data"])
                    await asyncio.sleep(AGAIN_S)
        return None

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

    def check(self) -> None:
        """Raise if the document that is coming cannot come."""
        if self._broken is not None:
            raise self.failure(self._broken)
        if self._strange:
            raise self.failure(f"it led to a page of the scheme {self._strange!r}")
        if self._marked():
            raise self.failure(f"HTTP status {self.status}")

    def _marked(self) -> bool:
        response = self._answered.get("response", {})
        # Over TLS the header could be the server's own.
        return response.get("url", "").startswith("http:") and any(each.lower() == MARK for each in response["headers"])

    # --- events

    def _on_event(self, method: str, parameters: Reply) -> None:
        match method:
            case "Page.javascriptDialogOpening":
                # Nobody is there to answer; only the question whether to leave a page has to be affirmed.
                answer = {"accept": parameters["type"] == "beforeunload"}
                self.instance.devtools.tell("Page.handleJavaScriptDialog", answer, self._session)
            case "Page.frameNavigated":
                self._on_navigated(parameters["frame"])
            case "Runtime.executionContextsCleared":
                self._world = None
            case "Runtime.executionContextCreated":
                context = parameters["context"]
                about = context.get("auxData", {})
                if about.get("isDefault") and about.get("frameId") == self.target:
                    self._world = context["uniqueId"], context["origin"]
            case "Fetch.requestPaused":
                self._on_paused(parameters)
            case "Runtime.consoleAPICalled":
                text = " ".join(_shown(each) for each in parameters["args"])
                self._note(parameters["type"], text)
            case "Runtime.exceptionThrown":
                self._note("error", _thrown(parameters["exceptionDetails"]))
            case _ if method.startswith("Network."):
                self._on_network(method, parameters)

    def _on_navigated(self, frame: Reply) -> None:
        self._visited(frame.get("securityOrigin", ""))
        if frame["id"] == self.target:
            scheme = urlsplit(frame["url"]).scheme
            self._strange = "" if scheme in OF_THE_WEB else scheme

    def _visited(self, origin: str) -> None:
        if len(self.origins) < MANY_ORIGINS:
            self.origins.add(origin)

    def _note(self, level: str, text: str) -> None:
        self.console.append(ConsoleLine(level, sound(text[:CONSOLE_CHARACTERS])))

    def _on_paused(self, parameters: Reply) -> None:
        number, request = parameters["requestId"], parameters["request"]
        tell = self.instance.devtools.tell
        if parameters["resourceType"].lower() in self._told.block:
            tell("Fetch.failRequest", {"requestId": number, "errorReason": "BlockedByClient"}, self._session)
            return
        parts = urlsplit(request["url"])
        answer: Reply = {"requestId": number}
        if self._told.headers and f"{parts.scheme}://{parts.netloc}" in self._header_origins:
            ours = {name.lower() for name in self._told.headers}
            kept = {name: value for name, value in request["headers"].items() if name.lower() not in ours}
            both = {**kept, **self._told.headers}
            answer["headers"] = [{"name": name, "value": value} for name, value in both.items()]
        tell("Fetch.continueRequest", answer, self._session)

    def _on_network(self, method: str, parameters: Reply) -> None:
        if method in {"Network.loadingFinished", "Network.loadingFailed"}:
            self._under_way.discard(parameters["requestId"])
        elif method == "Network.requestWillBeSent":
            self._under_way.add(parameters["requestId"])
            if parameters.get("type") == "Document" and parameters.get("frameId") != self.target:
                # A frame of another origin may have a process, and so a session of events, of its own.
                parts = urlsplit(parameters["request"]["url"])
                self._visited(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        if method == "Network.loadingFailed":
            self._on_failed(parameters)
        elif parameters.get("type") == "Document" and parameters.get("frameId") == self.target:
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


def _shown(argument: Reply) -> str:
    value = argument.get("value", argument.get("description", argument.get("unserializableValue", "")))
    return value if isinstance(value, str) else json.dumps(value)


def _thrown(details: Reply) -> str:
    return str(details.get("exception", {}).get("description") or details.get("text", ""))

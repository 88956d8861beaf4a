"""Calls of the `browser` queue: pages in a real Chromium, one-shot or in a session.

A session lives on one worker; calls about it go there by its id. `HolderLost` says that the worker has ended,
`SessionMissing` that the session has. `timeout_s` bounds the whole of a call.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

from gaia.codec import Body, Text
from gaia.contracts.base import URL_FORBIDDEN, Call, Result, contract, secret
from gaia.contracts.pages import FORMATS as FORMATS
from gaia.contracts.pages import MAX_FIELDS, MAX_STEPS, Format, Isolation, Picture, Until
from gaia.contracts.pages import BrowserHealth as BrowserHealth
from gaia.contracts.pages import BrowserStats as BrowserStats
from gaia.contracts.pages import ConsoleLine as ConsoleLine
from gaia.contracts.pages import Context as Context
from gaia.contracts.pages import Cookie as Cookie
from gaia.contracts.pages import CookieJar as CookieJar
from gaia.contracts.pages import PageContent as PageContent
from gaia.contracts.pages import Printed as Printed
from gaia.contracts.pages import Sessions as Sessions
from gaia.contracts.pages import SessionState as SessionState
from gaia.contracts.pages import Shot as Shot
from gaia.contracts.pages import Step as Step
from gaia.contracts.pages import Viewport as Viewport
from gaia.errors import GaiaError

R = TypeVar("R")
MAX_SCRIPT: Final = 1024 * 1024


@contract
class Captured(Result):
    """What a page looked like. Only the formats that were asked for are set.

    `url` and `title` are those of the page at the time of the capture; `status` is the HTTP status of the document,
    None for a page that was given as `html`. `extracted` holds what each field of `extract` found, in document order.
    """

    url: str = secret("url")
    title: str
    status: int | None
    png: bytes | None = secret("body", default=None)
    jpeg: bytes | None = secret("body", default=None)
    webp: bytes | None = secret("body", default=None)
    pdf: bytes | None = secret("body", default=None)
    html: Text | None = secret("body", default=None)
    text: Text | None = secret("body", default=None)
    console: tuple[ConsoleLine, ...] | None = None
    extracted: Mapping[str, tuple[str, ...]] | None = secret("body", default=None)


class _OfPage(Call[R]):
    """Checks that several calls share."""

    def _check_url(self, field: str = "url") -> None:
        self.require_text(field, forbidden=URL_FORBIDDEN)
        self.require(field, "must be an http or https URL with a host", holds=_is_page(getattr(self, field)))

    def _check_parts(self, context: Context | None, steps: tuple[Step, ...], fields: Mapping[str, str]) -> None:
        if context is not None and (objection := context.objection()) is not None:
            raise self.refuse("context", objection)
        self.require("steps", f"must be at most {MAX_STEPS}", holds=len(steps) <= MAX_STEPS)
        for number, each in enumerate(steps):
            if (objection := each.objection()) is not None:
                raise self.refuse(f"steps[{number}]", objection)
            if each.url is not None:
                self.require(f"steps[{number}].url", "must be an http or https URL", holds=_is_page(each.url))
        sound = len(fields) <= MAX_FIELDS and all(0 < len(value) <= 8192 for value in fields.values())  # noqa: PLR2004
        self.require("extract", f"must be at most {MAX_FIELDS} fields, each a selector", holds=sound)


@contract
class Capture(_OfPage[Captured], operation="browser.capture"):
    """Load a page, wait, act, and capture it; the page is gone afterwards.

    Exactly one of `url` (http or https) and `html` is given. The page is captured when it has loaded (`until`: `dom` is
    sooner, `idle` waits for 500 ms without traffic), when an element matches the CSS selector `wait_for`, and when
    `steps` are done. `extract` maps names to CSS selectors (`a.next@href` gives an attribute) or XPath (which begins
    with `/`, `./` or `(`). `isolation="reuse"` may take a page that the same `tenant` used before, its cookies and
    storage cleared: faster, less apart. A browser that dies under a capture is replaced, the capture tried once more.
    """

    url: str | None = secret("url", default=None)
    html: str | None = secret("body", default=None)
    formats: tuple[Format, ...] = ("png",)
    viewport: Viewport = Viewport()
    wait_for: str | None = None
    full_page: bool = False
    timeout_s: float = 30.0
    context: Context = Context()
    steps: tuple[Step, ...] = ()
    until: Until = "load"
    extract: Mapping[str, str] | None = None
    isolation: Isolation = "fresh"
    tenant: str | None = None

    def check(self) -> None:
        """Refuse what no browser could load.

        Raises:
            InvalidCall: with the field's name.
        """
        self.require(
            "url", "excludes html, and one of them must be given", holds=(self.url is None) != (self.html is None)
        )
        if self.url is not None:
            self._check_url()
        wanted = bool(self.formats) or bool(self.extract)
        self.require("formats", f"must name one or more of {', '.join(FORMATS)}", holds=wanted)
        self.require("viewport", "must be 1 to 8192 pixels a side", holds=self.viewport.fits())
        self._check_parts(self.context, self.steps, self.extract or {})
        for name in ("wait_for", "tenant"):
            if getattr(self, name) is not None:
                self.require_text(name)
        self.require_between("timeout_s", 0.001, 3600)

    def may_retry(self, error: GaiaError) -> bool:
        """Never: a page may have acted on its visit."""
        del error
        return False


# --- sessions


class _InSession(_OfPage[R]):
    """A call about a session; without `tab` about the one opened first."""

    HOLDER: ClassVar[str | None] = "id"

    def check(self) -> None:
        """Check what most of them have."""
        self._check_bounds()

    def _check_bounds(self) -> None:
        for name, most in (("tab", 64), ("wait_for", 8192)):
            if getattr(self, name, None) is not None:
                self.require_text(name, limit=most)
        if hasattr(self, "timeout_s"):
            self.require_between("timeout_s", 0.001, 3600)


@contract
class Opened(Result):
    """A session and its first tab."""

    id: str
    tab: str


@contract
class Open(_OfPage[Opened], operation="browser.open"):
    """Open a session: a context of its own with one blank tab, until it is closed or idle for `idle_s`.

    With `extensions` it is a full Chromium for this session alone, which can load extensions; that costs a second and
    400 MB.
    """

    viewport: Viewport = Viewport()
    context: Context = Context()
    idle_s: float = 60.0
    tenant: str | None = None
    extensions: bool = False
    timeout_s: float = 30.0

    def check(self) -> None:
        """Refuse what no browser could be.

        Raises:
            InvalidCall: with the field's name.
        """
        self.require("viewport", "must be 1 to 8192 pixels a side", holds=self.viewport.fits())
        self._check_parts(self.context, (), {})
        if self.tenant is not None:
            self.require_text("tenant")
        self.require_between("idle_s", 1, 86_400)
        self.require_between("timeout_s", 0.001, 3600)


@contract
class Closed(Result):
    """Whether there was a session to close."""

    id: str
    was_open: bool


@contract
class Close(_InSession[Closed], operation="browser.close"):
    """Close a session with all its tabs; again changes nothing."""

    id: str


@contract
class Status(_InSession[SessionState], operation="browser.status"):
    """Look at a session; that does not prolong it."""

    id: str


@contract
class List(_InSession[Sessions], operation="browser.list"):
    """List the sessions of a worker: the one that holds `id`, else whichever takes the call."""

    id: str | None = None


@contract
class Navigated(Result):
    """Where a tab is."""

    tab: str
    url: str = secret("url")
    title: str
    status: int | None


@contract
class OpenTab(_InSession[Navigated], operation="browser.open_tab"):
    """Open one more tab, and go to `url` if it is given."""

    id: str
    url: str | None = secret("url", default=None)
    timeout_s: float = 30.0

    def check(self) -> None:
        """Refuse what is no page."""
        self._check_bounds()
        if self.url is not None:
            self._check_url()


@contract
class TabClosed(Result):
    """Whether there was a tab to close."""

    tab: str
    was_open: bool


@contract
class CloseTab(_InSession[TabClosed], operation="browser.close_tab"):
    """Close a tab."""

    id: str
    tab: str


@contract
class Navigate(_InSession[Navigated], operation="browser.navigate"):
    """Go to an address and wait until the page has loaded."""

    id: str
    url: str = secret("url")
    tab: str | None = None
    until: Until = "load"
    wait_for: str | None = None
    timeout_s: float = 30.0

    def check(self) -> None:
        """Refuse what is no page."""
        self._check_bounds()
        self._check_url()


@contract
class Acted(Result):
    """Where the tab is after all steps."""

    tab: str
    url: str = secret("url")
    title: str
    steps: int


@contract
class Act(_InSession[Acted], operation="browser.act"):
    """Do steps on a page, one after the other."""

    id: str
    steps: tuple[Step, ...]
    tab: str | None = None
    timeout_s: float = 30.0

    def check(self) -> None:
        """Refuse what is no step."""
        self._check_bounds()
        self._check_parts(None, self.steps, {})


@contract
class Evaluated(Result):
    """The value as JSON."""

    value: Any = secret("body", default=None)


@contract
class Evaluate(_InSession[Evaluated], operation="browser.evaluate"):
    """Evaluate JavaScript among the page's own scripts; a promise is waited for."""

    id: str
    expression: str = secret("body")
    tab: str | None = None
    timeout_s: float = 30.0

    def check(self) -> None:
        """Refuse what is no script."""
        self._check_bounds()
        self.require_text("expression", limit=MAX_SCRIPT)


@contract
class Extracted(Result):
    """What each field found, in document order."""

    fields: Mapping[str, tuple[str, ...]] = secret("body")


@contract
class Extract(_InSession[Extracted], operation="browser.extract"):
    """Take texts or attributes out of a page, see `Capture.extract`."""

    id: str
    extract: Mapping[str, str]
    tab: str | None = None
    timeout_s: float = 30.0

    def check(self) -> None:
        """Refuse what is no selector."""
        self._check_bounds()
        self._check_parts(None, (), self.extract)


@contract
class Screenshot(_InSession[Shot], operation="browser.screenshot"):
    """Take a picture of a page, or with `selector` of the first element that matches."""

    id: str
    tab: str | None = None
    format: Picture = "png"
    full_page: bool = False
    selector: str | None = None
    timeout_s: float = 30.0


@contract
class Pdf(_InSession[Printed], operation="browser.pdf"):
    """Print a page."""

    id: str
    tab: str | None = None
    landscape: bool = False
    timeout_s: float = 30.0


@contract
class Content(_InSession[PageContent], operation="browser.content"):
    """Take the markup, the visible text and the console of a page."""

    id: str
    tab: str | None = None
    timeout_s: float = 30.0


@contract
class Cookies(_InSession[CookieJar], operation="browser.cookies"):
    """Remove all cookies with `clear`, set those of `add`, and give what the session has then.

    A cookie of `add` needs a `domain`.
    """

    id: str
    add: tuple[Cookie, ...] = ()
    clear: bool = False

    def check(self) -> None:
        """Refuse a cookie that belongs nowhere."""
        self.require("add", "must name the domain of each cookie", holds=all(each.domain for each in self.add))


@contract
class ExtensionLoaded(Result):
    """An extension that runs in the session."""

    id: str
    name: str


@contract
class LoadExtension(_InSession[ExtensionLoaded], operation="browser.load_extension"):
    """Load an unpacked extension into a session opened with `extensions`; pages loaded from now on have it.

    `extension` is a zip or tar of its directory, `manifest.json` at the top or in the only folder.
    """

    id: str
    extension: Body = secret("body")
    timeout_s: float = 30.0


# --- the worker


@contract
class Stats(_InSession[BrowserStats], operation="browser.stats"):
    """Count what a worker's browsers did: the one that holds `id`, else whichever takes the call."""

    id: str | None = None


@contract
class Health(_InSession[BrowserHealth], operation="browser.health"):
    """Ask whether a worker can open pages, by opening one."""

    id: str | None = None
    timeout_s: float = 30.0


def _is_page(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False

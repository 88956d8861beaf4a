"""What calls about pages are made of: the window, the context, cookies, steps, fields to extract."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

from gaia.codec import Text
from gaia.contracts.base import Result, contract, is_unicode, secret

Format = Literal["png", "jpeg", "webp", "pdf", "html", "text", "console"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

Picture = Literal["png", "jpeg", "webp"]
Device = Literal["desktop", "laptop", "phone", "small-phone", "tablet"]
ColorScheme = Literal["light", "dark"]
Isolation = Literal["fresh", "reuse"]
SameSite = Literal["Strict", "Lax", "None"]
Resource = Literal["document", "stylesheet", "image", "media", "font", "script", "xhr", "fetch", "websocket", "other"]
Action = Literal["navigate", "click", "type", "press", "select", "wait", "scroll"]
Until = Literal["load", "dom", "idle"]

MAX_STEPS: Final = 200
MAX_FIELDS: Final = 200
MAX_TEXT: Final = 8192
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "navigate": ("url",),
    "click": ("selector",),
    "type": ("selector", "text"),
    "press": ("text",),
    "select": ("selector", "text"),
}


@contract
class Viewport(Result):
    """The size of the page's window in CSS pixels, and device pixels per CSS pixel."""

    width: int = 1280
    height: int = 720
    scale: float = 1.0

    def fits(self) -> bool:
        """Say whether it is 1 to 8192 pixels a side, at a scale of 0.1 to 4."""
        return 1 <= self.width <= 8192 and 1 <= self.height <= 8192 and 0.1 <= self.scale <= 4  # noqa: PLR2004


@contract
class Cookie(Result):
    """A cookie. Without `domain` it is of the host of the page; `expires_s` is seconds since the epoch."""

    name: str
    value: str = secret("all")
    domain: str | None = None
    path: str = "/"
    expires_s: float | None = None
    http_only: bool = False
    secure: bool = False
    same_site: SameSite | None = None


@contract
class Context(Result):
    """How a page finds its browser.

    `device` sets window, scale, touch and user agent, over the viewport. `locale` is a BCP 47 tag, `timezone` a name of
    the IANA database. `headers` go along to the origin of the address that a call names, and to no other. Requests of
    the types in `block` are not sent.
    """

    device: Device | None = None
    locale: str | None = None
    timezone: str | None = None
    color_scheme: ColorScheme | None = None
    user_agent: str | None = None
    headers: Mapping[str, str] = secret("named", default_factory=dict)
    cookies: tuple[Cookie, ...] = ()
    block: tuple[Resource, ...] = ()

    def objection(self) -> str | None:
        """Say what is wrong with it, None if nothing is."""
        for name in ("locale", "timezone", "user_agent"):
            text = getattr(self, name)
            if text is not None and not (0 < len(text) <= 512 and text.isascii() and text.isprintable()):  # noqa: PLR2004
                return f"{name} must be 1 to 512 printable characters of ASCII"
        for name, value in self.headers.items():
            if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
                return f"{name!r} is no header name"
            if not value.isascii() or not (value.isprintable() or not value) or len(value) > MAX_TEXT:
                return f"header {name!r} must be printable characters of ASCII"
        return None


@contract
class Step(Result):
    """One thing done on a page. `timeout_s` bounds the wait for its element.

    `navigate` goes to `url`; `click` waits for the element to be visible and clicks its middle; `type` puts `text` in
    place of what the element holds; `press` presses the key `text`, one character or a name as `Enter`; `select` picks
    the option whose value or label is `text`; `wait` waits for `selector`, or for the page to have loaded; `scroll`
    brings `selector` into view, or scrolls by `dx`, `dy` CSS pixels. A selector is CSS.
    """

    action: Action
    selector: str | None = None
    text: str | None = secret("all", default=None)
    url: str | None = secret("url", default=None)
    dx: int = 0
    dy: int = 0
    timeout_s: float = 10.0

    def objection(self) -> str | None:
        """Say what is wrong with it, None if nothing is."""
        for name in _NEEDS.get(self.action, ()):
            if getattr(self, name) is None:
                return f"a step {self.action!r} needs {name}"
        for name in ("selector", "text", "url"):
            text = getattr(self, name)
            if text is not None and (
                not (len(text) > 0 or name == "text") or len(text) > MAX_TEXT or "\0" in text or not is_unicode(text)
            ):
                return f"{name} must have 1 to {MAX_TEXT} characters"
        if not 0 < self.timeout_s <= 3600:  # noqa: PLR2004 - an hour
            return "timeout_s must be above 0 and at most 3600"
        return None


@contract
class ConsoleLine(Result):
    """What a page wrote to its console, or an exception that it did not catch (level `error`)."""

    level: str
    text: str = secret("body")


@contract
class TabState(Result):
    """One tab as it is now."""

    tab: str
    url: str = secret("url")
    title: str


@contract
class SessionState(Result):
    """One session: its tabs, its age, how long it has been idle, and when that ends it."""

    id: str
    tabs: tuple[TabState, ...]
    age_s: float
    idle_s: float
    expires_in_s: float
    extensions: tuple[str, ...] = ()
    tenant: str | None = None


@contract
class Sessions(Result):
    """The sessions of one worker."""

    items: tuple[SessionState, ...]


@contract
class Shot(Result):
    """A picture."""

    picture: bytes = secret("body")
    format: Picture


@contract
class Printed(Result):
    """A page on paper."""

    pdf: bytes = secret("body")


@contract
class CookieJar(Result):
    """The cookies of a session."""

    cookies: tuple[Cookie, ...] = secret("all")


@contract
class BrowserStats(Result):
    """Counters since the worker's start, what is there now, and the most there was.

    `memory_bytes` is what all Chromium processes hold for themselves.
    """

    counters: Mapping[str, int]
    gauges: Mapping[str, int]
    peaks: Mapping[str, int]


@contract
class BrowserHealth(Result):
    """Whether a worker can open pages; `reason` says why not.

    `sandbox` is false where GAIA_BROWSER__NO_SANDBOX is on; `holds` counts sessions.
    """

    healthy: bool
    reason: str
    chromium: str
    version: str
    sandbox: bool
    instances: int
    tabs: int
    holds: int


@contract
class PageContent(Result):
    """What a page holds; `console` is what it wrote since the tab was last asked."""

    url: str = secret("url")
    title: str
    html: Text = secret("body")
    text: Text = secret("body")
    console: tuple[ConsoleLine, ...] = ()

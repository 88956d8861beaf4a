"""Calls of the `browser` queue: pages in a real Chromium."""

from typing import Final, Literal
from urllib.parse import urlsplit

from gaia.contracts.base import URL_FORBIDDEN, Call, Result, contract, secret
from gaia.errors import GaiaError

Format = Literal["png", "jpeg", "webp", "pdf", "html", "text"]
FORMATS: Final[tuple[Format, ...]] = ("png", "jpeg", "webp", "pdf", "html", "text")


@contract
class Viewport(Result):
    """The size of the page's window in CSS pixels, and device pixels per CSS pixel."""

    width: int = 1280
    height: int = 720
    scale: float = 1.0


@contract
class Captured(Result):
    """What a page looked like. Only the formats that were asked for are set.

    `url` and `title` are those of the page at the time of the capture; `status` is the HTTP status of the document,
    None for a page that was given as `html`.
    """

    url: str = secret("url")
    title: str
    status: int | None
    png: bytes | None = secret("body", default=None)
    jpeg: bytes | None = secret("body", default=None)
    webp: bytes | None = secret("body", default=None)
    pdf: bytes | None = secret("body", default=None)
    html: str | None = secret("body", default=None)
    text: str | None = secret("body", default=None)


@contract
class Capture(Call[Captured], operation="browser.capture"):
    """Load a page in a context of its own, wait, and capture it.

    Exactly one of `url` (http or https) and `html` is given. The page is captured when it has loaded and, with
    `wait_for`, when an element matches that CSS selector. `timeout_s` bounds all of it.
    """

    url: str | None = secret("url", default=None)
    html: str | None = secret("body", default=None)
    formats: tuple[Format, ...] = ("png",)
    viewport: Viewport = Viewport()
    wait_for: str | None = None
    full_page: bool = False
    timeout_s: float = 30.0

    def check(self) -> None:
        """Refuse what no browser could load.

        Raises:
            InvalidCall: with the field's name.
        """
        self.require(
            "url", "excludes html, and one of them must be given", holds=(self.url is None) != (self.html is None)
        )
        if self.url is not None:
            self.require_text("url", forbidden=URL_FORBIDDEN)
            self.require("url", "must be an http or https URL with a host", holds=_is_page(self.url))
        self.require("formats", f"must name one or more of {', '.join(FORMATS)}", holds=bool(self.formats))
        self.require("viewport", "must be 1 to 8192 pixels a side", holds=_fits(self.viewport))
        if self.wait_for is not None:
            self.require_text("wait_for")
        self.require_between("timeout_s", 0.001, 3600)

    def may_retry(self, error: GaiaError) -> bool:
        """Never: a page may have acted on its visit."""
        del error
        return False


def _is_page(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _fits(viewport: Viewport) -> bool:
    return 1 <= viewport.width <= 8192 and 1 <= viewport.height <= 8192 and 0.1 <= viewport.scale <= 4  # noqa: PLR2004

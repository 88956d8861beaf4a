"""The `browser` queue's door: contracts to service methods."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaia.contracts import browser
from tasks.runtime.services import assembled
from tasks.scope import Scope
from tasks.wiring import handles

if TYPE_CHECKING:
    from tasks.browser.service import BrowserService

service: "Callable[[], BrowserService]" = assembled("tasks.browser.assembly")


@handles(browser.Capture)
def capture(call: browser.Capture, scope: Scope) -> browser.Captured:
    """Load a page and capture it."""
    return service().capture(call, scope)


@handles(browser.Open)
def open(call: browser.Open, scope: Scope) -> browser.Opened:  # noqa: A001 - the operation's name
    """Open a session."""
    return service().open(call, scope)


@handles(browser.Close)
def close(call: browser.Close, scope: Scope) -> browser.Closed:
    """Close a session."""
    return service().close_session(call, scope)


@handles(browser.Status)
def status(call: browser.Status, scope: Scope) -> browser.SessionState:
    """Describe a session."""
    return service().status(call, scope)


@handles(browser.List)
def list(call: browser.List, scope: Scope) -> browser.Sessions:  # noqa: A001 - the operation's name
    """List the sessions of a worker."""
    return service().list(call, scope)


@handles(browser.OpenTab)
def open_tab(call: browser.OpenTab, scope: Scope) -> browser.Navigated:
    """Open a tab."""
    return service().open_tab(call, scope)


@handles(browser.CloseTab)
def close_tab(call: browser.CloseTab, scope: Scope) -> browser.TabClosed:
    """Close a tab."""
    return service().close_tab(call, scope)


@handles(browser.Navigate)
def navigate(call: browser.Navigate, scope: Scope) -> browser.Navigated:
    """Go to an address."""
    return service().navigate(call, scope)


@handles(browser.Act)
def act(call: browser.Act, scope: Scope) -> browser.Acted:
    """Do steps on a page."""
    return service().act(call, scope)


@handles(browser.Evaluate)
def evaluate(call: browser.Evaluate, scope: Scope) -> browser.Evaluated:
    """Evaluate JavaScript."""
    return service().evaluate(call, scope)


@handles(browser.Extract)
def extract(call: browser.Extract, scope: Scope) -> browser.Extracted:
    """Take fields out of a page."""
    return service().extract(call, scope)


@handles(browser.Screenshot)
def screenshot(call: browser.Screenshot, scope: Scope) -> browser.Shot:
    """Take a picture."""
    return service().screenshot(call, scope)


@handles(browser.Pdf)
def pdf(call: browser.Pdf, scope: Scope) -> browser.Printed:
    """Print a page."""
    return service().pdf(call, scope)


@handles(browser.Content)
def content(call: browser.Content, scope: Scope) -> browser.PageContent:
    """Take markup, text and console."""
    return service().content(call, scope)


@handles(browser.Cookies)
def cookies(call: browser.Cookies, scope: Scope) -> browser.CookieJar:
    """Set, remove and give cookies."""
    return service().cookies(call, scope)


@handles(browser.LoadExtension)
def load_extension(call: browser.LoadExtension, scope: Scope) -> browser.ExtensionLoaded:
    """Load an extension."""
    return service().load_extension(call, scope)


@handles(browser.Stats)
def stats(call: browser.Stats, scope: Scope) -> browser.BrowserStats:
    """Count."""
    return service().stats(call, scope)


@handles(browser.Health)
def health(call: browser.Health, scope: Scope) -> browser.BrowserHealth:
    """Say whether pages can be opened."""
    return service().health(call, scope)

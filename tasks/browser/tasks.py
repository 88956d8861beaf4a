"""The `browser` queue's door: contracts to service methods."""

from config.settings import load
from gaia.contracts import browser
from tasks.browser.service import BrowserService
from tasks.egress.gateway import Gateway
from tasks.scope import Scope
from tasks.wiring import handles, once


@once
def service() -> BrowserService:
    """Build the service of this process."""
    settings = load()
    return BrowserService(settings=settings.browser, dialler=Gateway.shared(settings))


@handles(browser.Capture)
def capture(call: browser.Capture, scope: Scope) -> browser.Captured:
    """Load a page and capture it."""
    return service().capture(call, scope)

"""Looking at the browsers of a service, from a test's thread."""

from typing import Any

from tasks.browser.instance import Instance
from tasks.browser.service import BrowserService


def running(service: BrowserService) -> Instance | None:
    """Give the browser started last that lives."""
    live = [each for each in service.pool.instances if not each.dead]
    return live[-1] if live else None


def ask(service: BrowserService, method: str, **parameters: Any) -> dict[str, Any]:
    """Send a command to that browser."""

    async def call() -> dict[str, Any]:
        found = running(service)
        assert found is not None
        return await found.devtools.call(method, parameters)

    return service.loop.post(call(), 10)


def page_count(service: BrowserService) -> int:
    """Count the pages of that browser."""
    return len(ask(service, "Target.getTargets")["targetInfos"])

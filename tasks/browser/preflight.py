"""Whether this machine has what the settings of the `browser` queue name; looked at when a worker starts."""

import os
from contextlib import suppress

from config.settings import Browser
from gaia.errors import InvalidSetting, NotConfigured
from tasks.browser import chromium
from tasks.browser.instance import unprivileged


def require(settings: Browser) -> None:
    """Refuse what no call could ever succeed with. A Chromium that is not named may be installed later.

    Raises:
        InvalidSetting: a program or the user that the settings name is not there.
    """
    for setting, program in ((chromium.SETTING, settings.chromium), (chromium.FULL_SETTING, settings.full_chromium)):
        if program is not None and chromium.program(program) is None:
            raise InvalidSetting(setting, f"names {program!r}, which is no program on this machine")
    if os.geteuid() == 0:
        unprivileged(settings.user)


def warning(settings: Browser) -> str:
    """Say what is missing and may come later; "" if nothing is."""
    with suppress(NotConfigured):
        chromium.find(settings.chromium)
        return ""
    return "this machine has no Chromium: calls fail until one is installed (`gaia chromium --install`)"

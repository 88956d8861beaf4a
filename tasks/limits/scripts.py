"""The Lua scripts of limits, whole."""

from typing import Final

from gaia.store.scripts import text

PACKAGE: Final = "tasks.limits"
NOW: Final = text(PACKAGE, "_now")
SCRIPTS: Final = {
    name: NOW + text(PACKAGE, name) for name in ("take", "acquire", "renew", "release", "end", "held", "circuit")
}

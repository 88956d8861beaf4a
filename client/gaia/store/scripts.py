"""Loads Lua scripts, those that lie beside this module and those of other packages.

A server that lost one is given it again.
"""

from functools import cache
from importlib.resources import files
from typing import Final

import redis
from redis.commands.core import Script

_OWN: Final = "gaia.store"

_INCLUDES: Final = {
    "bury": ("_bury",),
    "replay": ("_push",),
    "resume": ("_push",),
    "beat": ("_orphan",),
    "leave": ("_orphan",),
}


@cache
def source(name: str) -> str:
    """Give the text of `lua/<name>.lua`, what it includes in front."""
    return "".join(text(_OWN, each) for each in (*_INCLUDES.get(name, ()), name))


def include(name: str) -> str:
    """Give the text of a part that other packages' scripts include."""
    return text(_OWN, name)


def script(client: redis.Redis, name: str) -> Script:
    """Bind a script to a client; calling it sends EVALSHA, and loads it on NOSCRIPT."""
    return client.register_script(source(name))


def text(package: str, name: str) -> str:
    """Give the text of `lua/<name>.lua` of a package, as it is."""
    return files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")

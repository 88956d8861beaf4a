"""Loads the Lua scripts that lie beside this module; a server that lost one is given it again."""

from functools import cache
from importlib.resources import files

import redis
from redis.commands.core import Script


@cache
def source(name: str) -> str:
    """Give the text of `lua/<name>.lua`."""
    return files("gaia.store").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def script(client: redis.Redis, name: str) -> Script:
    """Bind a script to a client; calling it sends EVALSHA, and loads it on NOSCRIPT."""
    return client.register_script(source(name))

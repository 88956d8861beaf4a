"""The transport's Lua scripts, whole."""

import hashlib
from typing import Final

from gaia.store import keys
from gaia.store.scripts import include, text


def _source(name: str) -> str:
    return text("tasks.broker", name)


_READING: Final = _source("_message") + _source("_held")
TURN: Final = include("_bury") + include("_push") + _READING + _source("turn")
SCRIPTS: Final = {
    "turn": TURN,
    "renew": _source("renew"),
    "give_back": include("_push") + _READING + _source("give_back"),
    "restore": include("_push") + _READING + _source("restore"),
}
TURN_SHA: Final = hashlib.sha1(TURN.encode(), usedforsecurity=False).hexdigest()

SHARED_KEYS: Final = (keys.PAUSED, keys.DELAYED, keys.DELAYED_MESSAGES)
"""What producers touch too; they know no prefix."""

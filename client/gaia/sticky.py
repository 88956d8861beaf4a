"""Ids of what lives on one worker, as a session or a started process: they say where calls about it must go.

    api@host%2Eexample.8c1f0de2a4b35d67.5b0e...     node, boot, 128 random bits

The node is the worker's name and outlives restarts; the boot is new with every start, so a worker that came back under
its name is told from the one that held the thing.
"""

import re
import secrets
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote

_FORM: Final = re.compile(
    r"(?P<node>(?:[A-Za-z0-9_@~-]|%[0-9A-F]{2}){1,1024})\.(?P<boot>[0-9a-f]{16})\.(?P<random>[0-9a-f]{32})"
)


def escape(node: str) -> str:
    """Give a node name as ids, keys and queue names spell it: no dots, no blanks, ASCII alone.

    Percent-encoding (RFC 3986 section 2.1), of the dot too.
    """
    return quote(node, safe="@").replace(".", "%2E")


def new_boot() -> str:
    """Give a new boot id."""
    return secrets.token_hex(8)


@dataclass(frozen=True)
class HolderId:
    """The id of one held thing, taken apart. `node` is the plain name."""

    node: str
    boot: str
    random: str

    @classmethod
    def new(cls, node: str, boot: str) -> Self:
        """Make an id for another thing of a node's boot."""
        return cls(node, boot, secrets.token_hex(16))

    @classmethod
    def parse(cls, text: object) -> Self:
        """Take an id apart.

        Raises:
            ValueError: unless it is spelt exactly as `format` spells it. The text of the error does not show it.
        """
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError("must be an id of the form node.boot.random")
        try:
            node = unquote(found["node"], errors="strict")
        except UnicodeDecodeError:
            raise ValueError("must name its node in UTF-8") from None
        if escape(node) != found["node"]:
            raise ValueError("must spell its node as the worker does")
        return cls(node, found["boot"], found["random"])

    def format(self) -> str:
        """Give the id as it travels."""
        return f"{escape(self.node)}.{self.boot}.{self.random}"

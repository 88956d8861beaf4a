"""Which directory each root of files is, for the whole cluster: the hash `gaia:roots`, name to identity.

The first worker that has a root enters it; every later one compares. Redis is authoritative, and an entry stays until
`gaia roots forget`: what it guards against is a mount that is missing after everything was restarted.
"""

import json
from dataclasses import dataclass
from typing import Any

import redis

from gaia.errors import RootMismatch
from gaia.store import keys
from gaia.store.connection import reaching

NO_IDENTITY = "none"


@dataclass(frozen=True)
class KnownRoot:
    """A root that the cluster knows. `local` is one that not every worker has."""

    name: str
    identity: str
    local: bool


class Roster:
    """The roots that the cluster knows."""

    def __init__(self, client: "redis.Redis", url: str) -> None:
        """Use the broker's client; `url` is for errors."""
        self._client = client
        self._url = url

    def list(self) -> "list[KnownRoot]":
        """Give the roots, by name.

        Raises:
            Unreachable: if Redis did not answer.
        """
        with reaching(self._url):
            found: Any = self._client.hgetall(keys.ROOTS)
        return sorted((_known(name.decode(), value) for name, value in found.items()), key=lambda each: each.name)

    def claim(self, root: KnownRoot) -> None:
        """Enter a root, or find it as it was entered. One without identity, which cannot be written, is not entered.

        Raises:
            RootMismatch: if the cluster knows another directory by that name.
            Unreachable: if Redis did not answer.
        """
        value = json.dumps({"identity": root.identity, "local": root.local})
        with reaching(self._url):
            if root.identity and self._client.hsetnx(keys.ROOTS, root.name, value):
                return
            found: Any = self._client.hget(keys.ROOTS, root.name)
            if found is None:
                return
            known = _known(root.name, found)
            if known.identity != root.identity:
                raise RootMismatch(root.name, known.identity, root.identity or NO_IDENTITY)
            if known.local != root.local:
                self._client.hset(keys.ROOTS, root.name, value)

    def forget(self, name: str) -> bool:
        """Remove a root, so that the next worker may enter another directory; False if there was none.

        Raises:
            Unreachable: if Redis did not answer.
        """
        with reaching(self._url):
            return bool(self._client.hdel(keys.ROOTS, name))


def _known(name: str, value: bytes) -> KnownRoot:
    given = json.loads(value)
    return KnownRoot(name, str(given["identity"]), bool(given["local"]))

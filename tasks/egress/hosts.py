"""The hosts file, read again when it changes; a look-up costs no more than a look at the clock in between."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tasks.egress import names
from tasks.scope import Clock

CHECK_S: Final = 5.0
"""A change of the file is seen after at most this time."""

_BUILT_IN: Final = {"A": ("127.0.0.1",), "AAAA": ("::1",)}


class Hosts:
    """Names that never reach a name server: the hosts file, and `localhost` with all below it (RFC 6761)."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Read nothing yet."""
        self._path = path
        self._clock = clock
        # Written whole by any thread; two that read the file at once set the same.
        self._names: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
        self._stamp: tuple[int, int] | None = None
        self.check_at = clock.monotonic()
        """When the file is looked at next; until then nothing changes."""

    def addresses(self, name: str, kind: str) -> tuple[str, ...] | None:
        """Give the addresses of a canonical name, none if the file has it with the other type only.

        None stands for a name that name servers are to be asked for, as they are for every other type.
        """
        self._refresh()
        if kind not in _BUILT_IN:
            return None
        found = self._names.get(name)
        if names.is_localhost(name):
            return (found or {}).get(kind) or _BUILT_IN[kind]
        return None if found is None else found.get(kind, ())

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now < self.check_at:
            return
        self.check_at = now + CHECK_S
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._names = _parse(self._path.read_text(encoding="utf-8", errors="replace"))
                self._stamp = stamp
        except OSError:
            self._names, self._stamp = {}, None


def _parse(text: str) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    for line in text.splitlines():
        address, *aliases = line.partition("#")[0].split() or [""]
        kind = _kind(address)
        for alias in aliases if kind else ():
            known = names.setdefault(alias.lower().removesuffix("."), {})
            known[kind] = tuple(dict.fromkeys((*known.get(kind, ()), address)))
    return names


def _kind(address: str) -> str:
    for family, kind in ((socket.AF_INET, "A"), (socket.AF_INET6, "AAAA")):
        try:
            socket.inet_pton(family, address)
        except OSError:
            continue
        return kind
    return ""

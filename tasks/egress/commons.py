"""Answers that the workers of a cluster share, in Redis: the second level of the cache.

An answer lies there for what is left of its TTL, by Redis' clock: no clocks are compared, no hop makes it younger.
Workers share with those that ask the same servers (the view): others may see other zones. Redis is never waited for
longer than `BOUND_S` to connect and as long to reply; once it did not answer it is left alone for a second. Names are
asked of servers then, as without it.

A flush counts up one number. The number is part of every key, and looked at once a second, so that a second after a
flush no worker gives an older answer.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gaia.errors import Unreachable
from gaia.store import keys
from gaia.store.connection import connect
from gaia.store.scripts import text
from tasks.egress.cache import Key
from tasks.egress.wire import Found
from tasks.limits.reach import Reach

PACKAGE: Final = "tasks.egress"
BOUND_S: Final = 0.1
LOOK_S: Final = 1.0
AT_ONCE: Final = 500
"""Names a script call."""
SIZE_LIMIT_BYTES: Final = 4096
"""A larger answer is not shared."""


class Commons:
    """Thread-safe."""

    def __init__(self, reach: Reach, view: str) -> None:
        """Use a Redis whose time-outs are short; `view` is what answers depend on."""
        self._reach = reach
        self._view = hashlib.sha256(view.encode()).hexdigest()[:16]
        self._read = reach.client.register_script(text(PACKAGE, "names_read"))
        self._write = reach.client.register_script(text(PACKAGE, "names_write"))
        self.flushes = 0
        """The last count that was seen."""
        self.hits = 0

    @classmethod
    def to(cls, url: str, view: str) -> "Commons":
        """Make the client; it dials at the first call.

        Raises:
            InvalidSetting: if the URL is malformed.
        """
        return cls(Reach(connect(url, retries=0, reply_timeout_s=BOUND_S, connect_timeout_s=BOUND_S), url), view)

    def look(self) -> int:
        """Read the count of flushes; the last one that was seen while Redis is away."""
        try:
            found: Any = self._reach.call(lambda: self._reach.client.get(keys.NAMES_FLUSHES))
        except Unreachable:
            return self.flushes
        self.flushes = int(found or 0)
        return self.flushes

    def read(self, names: Sequence[Key], ends_at: float) -> dict[Key, Found]:
        """Give what is shared of these names; nothing while Redis is away, or when `ends_at` (monotonic) is near."""
        found: dict[Key, Found] = {}
        for at in range(0, len(names), AT_ONCE):
            if time.monotonic() > ends_at - 2 * BOUND_S:
                break
            part = names[at : at + AT_ONCE]
            try:
                texts = self._fetched(part)
            except Unreachable:
                break
            for key, given, left_ms in zip(part, texts[::2], texts[1::2], strict=True):
                records = _parsed(given)
                if records is not None and left_ms > 0:
                    found[key] = Found(records, left_ms / 1000)
        self.hits += len(found)
        return found

    def _fetched(self, part: Sequence[Key]) -> Any:
        for _ in range(2):
            known = self.flushes
            found: Any = self._reach.call(lambda: self._read(keys=self._keys(part, known), args=[known]))  # noqa: B023 - called here
            self.flushes = int(found[0])
            if self.flushes == known:
                return found[1:]
        return [None, 0] * len(part)

    def write(self, found: Mapping[Key, Found], flushes: int, ends_at: float) -> None:
        """Share answers, unless a flush came after `flushes` was read; while Redis is away nothing is.

        A little after `ends_at`, monotonic time, it gives up.
        """
        fit = {key: (json.dumps(each.records), round(each.ttl_s * 1000)) for key, each in found.items()}
        fit = {key: each for key, each in fit.items() if each[1] > 0 and len(each[0]) <= SIZE_LIMIT_BYTES}
        names = list(fit)
        for at in range(0, len(names), AT_ONCE):
            if time.monotonic() > ends_at:
                return
            part = names[at : at + AT_ONCE]
            args = [flushes, *(value for key in part for value in fit[key])]
            try:
                self._reach.call(lambda: self._write(keys=self._keys(part, flushes), args=args))  # noqa: B023 - called here
            except Unreachable:
                return

    def flush(self) -> None:
        """Let every worker forget what it keeps, and what is shared.

        Raises:
            Unreachable: Redis did not answer.
        """
        found: Any = self._reach.call(lambda: self._reach.client.incr(keys.NAMES_FLUSHES))
        self.flushes = int(found)

    def close(self) -> None:
        """Give the connections back."""
        self._reach.close()

    def _keys(self, names: Sequence[Key], flushes: int) -> list[str]:
        return [keys.NAMES_FLUSHES, *(keys.answer(flushes, self._view, kind, name) for name, kind in names)]


def _parsed(given: bytes | None) -> tuple[str, ...] | None:
    """Read what another worker wrote; what nobody can read is None."""
    try:
        found = None if given is None else json.loads(given)
    except ValueError:
        return None
    return tuple(found) if isinstance(found, list) and all(isinstance(each, str) for each in found) else None

"""Calls about something on one worker that a pause holds up: they are answered when that worker goes.

What was put aside lies on no queue, so no sweep of own queues meets it. Each beat looks at a piece of every list, in
turns: a list of any length costs as little a beat, and is seen whole in time.
"""

from collections.abc import Callable
from typing import Any, Final

import redis

from gaia.message import opened
from gaia.sticky import HolderId
from gaia.store import keys
from gaia.store.scripts import script
from tasks.runtime.orphans import holder_of

LOOKED_AT: Final = 50
"""Entries of each list a beat."""


class Aside:
    """Where this process is in the lists. For one thread."""

    def __init__(self, client: redis.Redis, answer: Callable[[bytes], None]) -> None:
        """Look over `client`; `answer` takes the messages whose worker has gone."""
        self._client = client
        self._answer = answer
        self._seen: dict[str, int] = {}

    def look(self) -> None:
        """Look at the next piece of each list.

        Raises:
            redis.RedisError: what is answered and not removed is answered again.
        """
        paused: Any = self._client.smembers(keys.PAUSED)
        names = [keys.aside(each.decode()) for each in paused]
        self._seen = {name: self._seen.get(name, 0) for name in names}
        for name in names:
            looked_at, *found = script(self._client, "aside")(
                keys=[name, keys.SWEEP], args=[self._seen[name], LOOKED_AT]
            )
            removed = sum(self._end(name, *pair) for pair in zip(found[::2], found[1::2], strict=True))
            self._seen[name] = self._seen[name] + looked_at - removed if looked_at == LOOKED_AT else 0

    def _end(self, name: str, entry: bytes, boot: bytes) -> bool:
        """Answer and remove an entry if the boot that it is for is not its node's any more."""
        message = entry.partition(b"\n")[2]
        headers, fields = opened(message)
        try:
            wanted = HolderId.parse(holder_of(str(headers.get("task")), fields)).boot.encode()
        except ValueError:
            wanted = boot or b"gone"  # no id that could be told apart: the node decides
        if wanted == boot:
            return False
        self._answer(message)
        self._client.lrem(name, 1, entry)  # type: ignore[arg-type]  # redis-py takes bytes
        return True

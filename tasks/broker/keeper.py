"""What a process tells Redis of the messages it holds, besides the turns of its channel, over a connection of its own.

A channel's connections may be half open, or closed at the end of a worker; the leases must be renewed, and the last
commits sent, all the same. Its replies are waited for one second: two tries fit between two renewals.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gaia.store import keys
from tasks.broker.scripts import SCRIPTS, SHARED_KEYS

REPLY_BOUND_S: Final = 1.0
LEASE_S: Final = 6.0
"""A message whose holder did not renew for so long is given to another worker."""

RESTORED_AT_ONCE: Final = 1000
LOST_KEPT_S: Final = 24 * 3600


class Commit(NamedTuple):
    """The end of a message: it leaves the held ones, and with it goes its result, both or neither."""

    tag: str
    fence: str
    key: str = ""
    value: bytes | str = ""
    ttl_s: int = 0
    action: str = ""
    first: str = ""
    second: str = ""

    @property
    def is_plain(self) -> bool:
        """Say whether there is nothing besides the end."""
        return not self.key and not self.action

    def arguments(self) -> tuple[Any, ...]:
        """Give what the turn script takes."""
        return self


def turn_arguments(want: int, queues: Sequence[str], fence: str, commits: Sequence[Commit]) -> list[Any]:
    """Give the arguments of the turn script; most ends bring no result and travel as one string."""
    plain = "".join(f"{each.tag}\t{each.fence}\n" for each in commits if each.is_plain)
    others = [each for each in commits if not each.is_plain]
    parts = [part for each in others for part in each.arguments()]
    return [want, len(queues), fence, plain, len(others), *parts, *queues]


class Keeper:
    """Renews, commits, gives back and restores. Thread-safe. Raises what redis-py raises."""

    def __init__(self, pool: "redis.ConnectionPool", held: Sequence[str], sweep: str) -> None:
        """Use a pool that nothing was taken from yet; `held` are the three keys of what is held."""
        pool.connection_kwargs.update(
            socket_timeout=REPLY_BOUND_S, socket_connect_timeout=REPLY_BOUND_S, retry=Retry(NoBackoff(), 1)
        )
        # kombu's client would prefix the first key of a script alone.
        self._client = redis.Redis(connection_pool=pool)
        self._scripts = {name: self._client.register_script(text) for name, text in SCRIPTS.items()}
        self._held = list(held)
        self._sweep = sweep

    def renew(self, leases: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Renew leases, given by tag and fence; give those that are lost."""
        found = self._scripts["renew"](keys=self._held[1:], args=[part for each in leases for part in each])
        parts = [each.decode() for each in found]
        return list(zip(parts[::2], parts[1::2], strict=True))

    def commit(self, commits: Sequence[Commit], fence: str) -> int:
        """Send commits without a turn; give how many were refused."""
        arguments = turn_arguments(0, [""], fence, commits)
        return int(self._scripts["turn"](keys=[*self._held, *SHARED_KEYS], args=arguments)[0])

    def give_back(self, leases: Iterable[tuple[str, str]], where: str) -> int:
        """Give messages back to their lists, to be fetched "next" in the order given, or "last"; give how many went."""
        ordered = list(leases)
        if where == "next":
            ordered.reverse()
        args = [where, *(part for each in ordered for part in each)]
        return int(self._scripts["give_back"](keys=self._held, args=args))

    def sweep(self, suspect_from: int) -> int:
        """Restore the messages of dead holders; give how many."""
        return int(
            self._scripts["restore"](
                keys=[*self._held, self._sweep], args=[LEASE_S, RESTORED_AT_ONCE, LOST_KEPT_S, suspect_from]
            )
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.connection_pool.disconnect()


def held_keys(prefix: str, unacked: str, index: str) -> list[str]:
    """Name the three keys of what is held."""
    return [prefix + unacked, prefix + index, prefix + keys.HELD]

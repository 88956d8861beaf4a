"""What lies in Redis: keys by the beginning of their names, ids struck out; see `gaia.store.keys`."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import redis

from tests.soak.samples import Quantity

OF_CALLS = re.compile(
    r"(celery-task-meta-|gaia:(?:progress|artifact|cancel|key|lost|history):)",
)
"""They end with the life that each call gives them."""

OF_NAMES = re.compile(
    r"(\{gaia:limits\}:(?:bucket|slots|circuit):|\{gaia:dns\}:(?=\d)|gaia:(?:node|later|aside|dead):)"
)
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{8,}|\d+")

LIFE_S = 25 * 3600
"""No key that ends lives longer: a day past the deadline of its call. Dead letters do; the load makes none."""

BATCH = 1000
SERVER_MEMORY = Quantity("redis", "memory used, bytes")
_SIZES = {"hash": "HLEN", "zset": "ZCARD", "list": "LLEN", "set": "SCARD", "stream": "XLEN"}


def prefix(name: str) -> str:
    """Strike out of a key's name what tells it from its likes."""
    found = OF_CALLS.match(name) or OF_NAMES.match(name)
    return f"{found[1]}*" if found else _ID.sub("*", name)


def look(client: "redis.Redis") -> dict[Quantity, float]:
    """Count keys that end and keys that do not, and what these hold; of limits, the leases in either."""
    found: Counter[str] = Counter()
    for names in _batches(client):
        lives, kinds = _ask(client, "TTL", names), _ask(client, "TYPE", names)
        for name, life, kind in zip(names, lives, kinds, strict=True):
            shown = prefix(name.decode(errors="replace"))
            lasting = not 0 <= life <= LIFE_S
            found[f"keys {'without' if lasting else 'with'} an end: {shown}"] += life != GONE
            command = _SIZES.get(kind.decode())
            if command and (lasting or shown.startswith("{gaia:limits}:slots:")):
                found[f"entries: {shown}"] += client.execute_command(command, name)
    return {Quantity("redis", name): float(value) for name, value in found.items()}


GONE = -2
"""What TTL says of a key that ended meanwhile."""


def end_lives(client: "redis.Redis") -> None:
    """End what would end by itself, so that the server's memory can be compared: as if a day had passed."""
    for names in _batches(client):
        ending = [each for each in names if OF_CALLS.match(each.decode(errors="replace"))]
        lives = _ask(client, "TTL", ending)
        gone = [name for name, life in zip(ending, lives, strict=True) if 0 <= life <= LIFE_S]
        if gone:
            client.unlink(*gone)


def server(client: "redis.Redis") -> dict[Quantity, float]:
    """Give what the server says of itself."""
    info: Any = client.info()
    return {
        SERVER_MEMORY: info["used_memory"],
        Quantity("redis", "clients"): info["connected_clients"],
        Quantity("redis", "channels subscribed to"): info["pubsub_channels"] + info.get("pubsub_patterns", 0),
    }


def _batches(client: "redis.Redis") -> Iterator[list[bytes]]:
    names = iter(set(client.scan_iter("*", count=BATCH)))
    while batch := list(islice(names, BATCH)):
        yield batch


def _ask(client: "redis.Redis", command: str, names: list[bytes]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.execute_command(command, name)
        return pipe.execute()

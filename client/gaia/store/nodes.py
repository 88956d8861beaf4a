"""The nodes of the cluster: who lives, with which boot; and the messages that nodes left on their own queues.

A worker owns its heartbeat and writes it every two seconds; Redis drops it ten seconds after the last. A node without
one has gone. What lies on its own queue then is orphaned by the next beat of any worker, which answers it, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from gaia import sticky
from gaia.store import keys
from gaia.store.connection import reaching
from gaia.store.scripts import script

BEAT_S: Final = 2.0
LIFE_S: Final = 10
"""A node that has not beaten for so long has gone."""

REPLY_TIMEOUT_S: Final = 3.0
"""For a beat: one over a connection that fell silent, and its repetition over the next, fit into a life."""

SWEPT_PER_BEAT: Final = 500
"""Messages that one beat takes off the queues of nodes that have gone: what it may cost everybody else."""

Orphan = tuple[bytes, bytes]
"""What names an orphaned message in the store, and the message."""


@dataclass(frozen=True)
class Node:
    """A worker process that lives. `started_at` and `seen_at` are seconds since the epoch.

    `boot` is new with every start and re-execution; `seen_at` is by the clock of Redis. `machine` names the run of a
    kernel, and the process namespace in it, in which `pid` means something; "" if that is not known. `roots` are the
    local roots of files that it has, `endpoint` is where its metrics and health are, as `http://host:port`.
    """

    name: str
    boot: str
    pid: int
    host: str
    queues: tuple[str, ...]
    concurrency: int
    version: str
    started_at: float
    seen_at: float = 0.0
    machine: str = field(default="", repr=False)
    roots: tuple[str, ...] = ()
    endpoint: str = ""


class Nodes:
    """`Gaia.nodes()`, and what workers ask of the nodes."""

    def __init__(self, client: "redis.Redis", url: str) -> None:
        """Use the broker's client; `url` is for errors."""
        self._client = client
        self._url = url

    def list(self) -> "list[Node]":
        """Give the nodes that live, by name.

        Raises:
            Unreachable: if Redis did not answer.
        """
        with reaching(self._url):
            found: Any = self._client.zrange(keys.NODES, 0, -1)
            with self._client.pipeline(transaction=False) as pipe:
                for each in found:
                    pipe.hgetall(keys.NODE.encode() + each)
                hashes: Any = pipe.execute(raise_on_error=False)
            for each in hashes:
                if isinstance(each, Exception) and "WRONGTYPE" not in str(each):
                    raise each
        # What is no node of ours hides none of the others.
        nodes = [_node(each) for each in hashes if each and not isinstance(each, Exception)]
        return sorted((each for each in nodes if each is not None), key=lambda each: each.name)

    def lives(self, holder: sticky.HolderId) -> bool:
        """Say whether the node lives, with the boot that made the id.

        Raises:
            Unreachable: if Redis did not answer.
        """
        with reaching(self._url):
            return self._client.hget(keys.node(holder.node), "boot") == holder.boot.encode()


def beat(client: "redis.Redis", node: Node, *, first: bool = False, replaces: str = "") -> list[Orphan] | None:
    """Say that a node lives, and orphan what those that have gone left; give a few orphans to be answered.

    Gives None if another boot has the name: then nothing was said. `replaces` is a boot known to have ended. With its
    `first` beat a boot orphans what lies on its own queue for earlier ones.
    """
    found = script(client, "beat")(
        keys=[keys.node(node.name), keys.NODES, keys.SWEEP],
        args=[sticky.escape(node.name), LIFE_S, SWEPT_PER_BEAT, node.boot, int(first), replaces, *_fields(node)],
    )
    return None if found == 0 else _pairs(found)


def holder_of(client: "redis.Redis", name: str) -> Node | None:
    """Give the node that has a name, None if nobody has it."""
    found: Any = client.hgetall(keys.node(name))
    return _node(found) if found else None


def leave(client: "redis.Redis", node: Node) -> list[Orphan]:
    """Say that a node has gone, and orphan what it left; give a few orphans to be answered."""
    found = script(client, "leave")(
        keys=[keys.node(node.name), keys.NODES],
        args=[sticky.escape(node.name), node.boot, SWEPT_PER_BEAT],
    )
    return _pairs(found)


def orphans(client: "redis.Redis", answered: Sequence[Orphan]) -> list[Orphan]:
    """Remove orphans that were answered; give a few more."""
    with client.pipeline(transaction=False) as pipe:
        pipe.hdel(keys.ORPHANS, *(name for name, _ in answered))
        pipe.hrandfield(keys.ORPHANS, 16, withvalues=True)
        return _pairs(pipe.execute()[1] or [])


def _pairs(found: Sequence[Any]) -> list[Orphan]:
    # RESP3 gives pairs, a script a flat list.
    if found and isinstance(found[0], list | tuple):
        return [(bytes(name), bytes(message)) for name, message in found]
    return list(zip(found[::2], found[1::2], strict=True))


def _fields(node: Node) -> list[Any]:
    values = {
        "name": node.name,
        "boot": node.boot,
        "pid": node.pid,
        "host": node.host,
        "queues": "\n".join(node.queues),
        "concurrency": node.concurrency,
        "version": node.version,
        "started_at": f"{node.started_at:.6f}",
        "machine": node.machine,
        "roots": "\n".join(node.roots),
        "endpoint": node.endpoint,
    }
    return [part for pair in values.items() for part in pair]


def _node(found: dict[bytes, bytes]) -> Node | None:
    fields = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in found.items()}
    try:
        return _read(fields)
    except ValueError:
        return None


def _read(fields: dict[str, str]) -> Node:
    return Node(
        name=fields.get("name", ""),
        boot=fields.get("boot", ""),
        pid=int(fields.get("pid", 0)),
        host=fields.get("host", ""),
        queues=tuple(fields.get("queues", "").split("\n")),
        concurrency=int(fields.get("concurrency", 0)),
        version=fields.get("version", ""),
        started_at=float(fields.get("started_at", 0)),
        seen_at=float(fields.get("seen_at", 0)),
        machine=fields.get("machine", ""),
        roots=tuple(fields.get("roots", "").split()),
        endpoint=fields.get("endpoint", ""),
    )

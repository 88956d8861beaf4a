"""The cluster's list of started programs, in Redis: who holds what, by worker, pid and start.

It is news for people and for whoever sweeps after a lost worker; the worker's own memory is authoritative. With Redis
away it is silent (fail open): a program is started and held all the same.
"""

import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import redis

from gaia.sticky import HolderId, escape
from gaia.store import keys
from gaia.store.connection import reaching
from gaia.store.nodes import Nodes
from tasks.process.launcher import tree
from tasks.process.launcher.spawn import OOM_SCORE
from tasks.runtime.identity import Identity

log = logging.getLogger(__name__)

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = "/proc/self/ns/pid"


@dataclass(frozen=True)
class Record:
    """One started program, and its worker's process, the owner. `machine` is where pids mean something."""

    id: str
    worker: str
    host: str
    machine: str
    pid: int
    pid_started: int
    owner_pid: int
    owner_started: int
    program: str
    profile: str
    started_at: float

    @property
    def field(self) -> str:
        """Name it in the registry."""
        return f"{escape(self.worker)}/{self.pid}/{self.pid_started}"


@cache
def machine() -> str:
    """Name this boot of this machine, and the PID namespace (pid_namespaces(7))."""
    with suppress(OSError):
        return f"{_BOOT.read_text(encoding='ascii').strip()}/{os.readlink(_NAMESPACE)}"  # noqa: PTH115 - no file
    return socket.gethostname()


def record(program_id: str, worker: str, pid: int, found: tree.Stat | None, *, program: str, profile: str) -> Record:
    """Describe a program that has just been started here; `found` is its process, None if that has ended."""
    owner = tree.stat(os.getpid())
    return Record(
        id=program_id,
        worker=worker,
        host=socket.gethostname(),
        machine=machine(),
        pid=pid,
        pid_started=found.start if found else 0,
        owner_pid=os.getpid(),
        owner_started=owner.start if owner else 0,
        program=program,
        profile=profile,
        started_at=time.time(),
    )


class Registry:
    """The list. Thread-safe."""

    def __init__(self, client: "redis.Redis", url: str) -> None:
        """Use the broker's Redis; `url` is for errors."""
        self._client = client
        self._url = url
        self._nodes = Nodes(client, url)

    def enter(self, entry: Record) -> None:
        """Put a program on the list."""
        try:
            self._client.hset(keys.PROCESSES, entry.field, json.dumps(asdict(entry)))
        except (redis.RedisError, OSError) as failure:
            log.warning("a started program is not on the cluster's list: %s", failure)

    def leave(self, entry: Record) -> None:
        """Take a program off the list; what that misses, `sweep` removes once the worker has gone."""
        try:
            self._client.hdel(keys.PROCESSES, entry.field)
        except (redis.RedisError, OSError) as failure:
            log.warning("a program that ended stays on the cluster's list: %s", failure)

    def list(self) -> "list[tuple[Record, bool]]":
        """Give every entry, the oldest first, and whether its worker is lost.

        Raises:
            Unreachable
        """
        with reaching(self._url):
            found: Any = self._client.hgetall(keys.PROCESSES)
        alive: dict[str, bool] = {}
        entries = []
        for entry in sorted(_records(found), key=lambda each: each.started_at):
            holder = HolderId.parse(entry.id)
            boot = f"{holder.node} {holder.boot}"
            if boot not in alive:
                alive[boot] = self._nodes.lives(holder)
            entries.append((entry, not alive[boot]))
        return entries

    def sweep(self, own: Identity) -> tuple[int, int]:
        """Remove the records of lost workers; kill what lives of them on this machine. Give how many of each.

        A worker that Redis alone has lost sight of, this one for instance, is not lost: its process is looked for.

        Raises:
            Unreachable
        """
        records = killed = 0
        for entry, lost in self.list():
            if lost and not own.owns(HolderId.parse(entry.id)) and not _owner_lives(entry):
                if entry.machine == machine() and _kill(entry):
                    killed += 1
                with reaching(self._url):
                    self._client.hdel(keys.PROCESSES, entry.field)
                records += 1
        return records, killed


def _records(found: dict[bytes, bytes]) -> Iterator[Record]:
    for value in found.values():
        try:
            entry = Record(**json.loads(value))
            HolderId.parse(entry.id)
        except (ValueError, TypeError):
            continue  # of another version
        yield entry


def _is_program(pid: int) -> bool:
    """Say whether a process was started as one of ours: it gains no privileges, and is among the first to be killed."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        score = int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return "\nNoNewPrivs:\t1\n" in status and score >= OOM_SCORE


def _owner_lives(entry: Record) -> bool:
    """Look for the worker's process on this machine; as this one it has another boot by now."""
    if entry.machine != machine() or entry.owner_pid == os.getpid():
        return False
    found = tree.stat(entry.owner_pid)
    return found is not None and found.start == entry.owner_started and found.state not in b"ZX"


def _kill(entry: Record) -> bool:
    """Kill exactly that process and what is below it, never one that got its pid since.

    Nor one that bears no mark of a program: whoever can write to Redis could name any process.
    """
    found = tree.stat(entry.pid)
    if found is None or found.start != entry.pid_started or found.state in b"ZX" or not _is_program(entry.pid):
        return False
    for pid in (*tree.descendants(entry.pid), entry.pid):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return True

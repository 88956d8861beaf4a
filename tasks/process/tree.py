"""A program and everything it started: what they use, and how they are stopped.

A process belongs to the tree if its parent does, or if it is in a session that the tree led when it was last looked at;
so children that called setsid(2) belong to it, and those whose parent has died.

What is not seen: a grandchild that leaves its session and loses its parent between two looks. It becomes a child of
init and is neither counted nor stopped. Memory that processes share counts once for each of them.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from typing import Final, NamedTuple

SAMPLE_S: Final = 0.05
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_DYING_S: Final = 0.002
"""Until a killed process is looked for again."""


class Stat(NamedTuple):
    """A process as /proc/<pid>/stat shows it; pid and start (ticks since boot) together name it for ever."""

    pid: int
    start: int
    parent: int
    session: int
    alive: bool
    rss_bytes: int
    cpu_s: float
    """User and system time of the process and of the children it waited for."""


class ProcessTable:
    """Every process of the machine. Owned by a service; the trees of its calls share one look of up to 25 ms ago."""

    def __init__(self) -> None:
        """Start without a look."""
        self._lock = threading.Lock()
        self._found: dict[int, Stat] = {}
        self._taken_at = -1.0

    def look(self, *, fresh: bool = False) -> dict[int, Stat]:
        """Give the processes by pid."""
        asked_at = time.monotonic()
        with self._lock:
            if self._taken_at < asked_at - (0 if fresh else SAMPLE_S / 2):
                self._taken_at = time.monotonic()
                self._found = _scan()
            return self._found


class Tree:
    """The tree of one program, which leads a session of its own and is not waited for while the tree is in use."""

    def __init__(self, pid: int, table: ProcessTable) -> None:
        """Start without a look."""
        self._pid = pid
        self._table = table
        self._known: dict[int, int] = {}
        self.memory_bytes = 0
        self.peak_memory_bytes = 0
        self.cpu_s = 0.0

    def look(self, *, fresh: bool = False) -> list[Stat]:
        """Give the members that live, and keep what they use."""
        members = self._members(self._table.look(fresh=fresh))
        # A child just made by vfork(2) shows its parent's memory as its own: it counts from its second look on.
        counted = [each for each in members if each.pid == self._pid or self._known.get(each.pid) == each.start]
        self.memory_bytes = sum(each.rss_bytes for each in counted)
        self.peak_memory_bytes = max(self.peak_memory_bytes, self.memory_bytes)
        # Each sum is a lower bound: a process that died unwaited for is missing from the later ones.
        self.cpu_s = max(self.cpu_s, sum(each.cpu_s for each in members))
        self._known = {each.pid: each.start for each in members}
        return [each for each in members if each.alive]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every member that lives."""
        for each in self.look(fresh=True):
            _send(each, number)

    def kill(self, *, within_s: float) -> bool:
        """Send SIGKILL until no member lives; say whether that came true in time."""
        end = time.monotonic() + within_s
        while members := self.look(fresh=True):
            if time.monotonic() > end:
                return False
            # A group at once: none of it can fork away from under the look.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            for each in members:
                _send(each, signal.SIGKILL)
            time.sleep(_DYING_S)
        return True

    def _members(self, table: dict[int, Stat]) -> list[Stat]:
        found = {self._pid: table[self._pid]} if self._pid in table else {}
        found |= {pid: table[pid] for pid, start in self._known.items() if pid in table and table[pid].start == start}
        # A process on its way out shows no session.
        sessions = {self._pid} | {each.session for each in found.values() if each.session > 0}
        size = -1
        while size < len(found):
            size = len(found)
            for pid, each in table.items():
                if each.parent in found or each.session in sessions:
                    found[pid] = each
                    sessions.add(each.session)
        return list(found.values())


def _scan() -> dict[int, Stat]:
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - half the time, twenty times a second
        if name.isdecimal() and (stat := _stat(int(name))) is not None:
            found[stat.pid] = stat
    return found


def _stat(pid: int) -> Stat | None:
    """Read proc_pid_stat(5); None if there is no such process. The name, second field, may hold any byte but NUL."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(fd, 2048)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    field = line[line.rindex(b")") + 2 :].split()
    return Stat(
        pid=pid,
        start=int(field[19]),
        parent=int(field[1]),
        session=int(field[3]),
        alive=field[0] not in b"ZX",
        rss_bytes=int(field[21]) * _PAGE_BYTES,
        cpu_s=sum(map(int, field[11:15])) / _TICKS_PER_S,
    )


def _send(member: Stat, number: signal.Signals) -> None:
    """Signal exactly that process, never one that got its pid since."""
    # PermissionError: it runs as another user (setuid).
    with suppress(ProcessLookupError, PermissionError):
        fd = os.pidfd_open(member.pid)
        try:
            now = _stat(member.pid)
            if now is not None and now.start == member.start:
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)

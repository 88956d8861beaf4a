"""The processes below one of ours, as /proc shows them: proc_pid_stat(5).

A subreaper keeps every descendant below itself, so following parents finds the whole tree: daemons and sessions of
their own too. Memory that processes share counts once for each of them.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_LAST: Final = 19
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """A process; pid and start (ticks since boot) together name it for ever."""

    pid: int
    parent: int
    start: int
    state: bytes
    memory_bytes: int
    cpu_s: float
    """User and system time of the process and of the children it waited for."""


class Sample(NamedTuple):
    """What lives of a tree at one moment, and its CPU time: a lower bound, for processes come and go under the look."""

    members: tuple[Stat, ...]
    cpu_s: float


def stat(pid: int) -> Stat | None:
    """Read one process; None if there is no such. The name, second field, may hold any byte but NUL."""
    line = _read(f"/proc/{pid}/stat")
    if not line:
        return None
    field = line[line.rindex(b")") + 2 :].split()
    return Stat(
        pid=pid,
        parent=int(field[1]),
        start=int(field[19]),
        state=field[0],
        memory_bytes=int(field[21]) * _PAGE_BYTES,
        cpu_s=sum(map(int, field[11:15])) / _TICKS_PER_S,
    )


def descendants(root: int) -> list[int]:
    """Give the pids below a process, by /proc/<pid>/task/<tid>/children or, in kernels without it, by a look at all."""
    return list(_walk(root))


def sample(root: int) -> Sample:
    """Look at what lives below a process."""
    stats = [each for pid in descendants(root) if (each := stat(pid)) is not None and each.state not in b"ZX"]
    return Sample(tuple(stats), sum(each.cpu_s for each in stats))


def children(pid: int) -> list[int]:
    """Give the pids right below a process."""
    found = _children(pid)
    if found is None:
        return [each for each in _descendants_by_parents(pid) if (one := stat(each)) and one.parent == pid]
    return found


def kill_below(root: int) -> None:
    """Kill what lives below a process, each at once as it is found; what forks faster than that needs another pass.

    Whole process groups first: fork(2) fails in one that a signal is being sent to, so none of it gets away. No group
    of a descendant that leads its own session (setsid(2)) has other members.
    """
    killed = {os.getpgid(root)}
    for pid in _walk(root):
        with suppress(ProcessLookupError, PermissionError):
            group = os.getpgid(pid)
            if group not in killed:
                killed.add(group)
                os.killpg(group, signal.SIGKILL)
            # Should it get away once more, its children run behind everybody else.
            os.setpriority(os.PRIO_PROCESS, pid, _LAST)
            os.kill(pid, signal.SIGKILL)


def _walk(root: int) -> Iterator[int]:
    """Give each descendant as soon as it is found, after its own children were looked up."""
    heap = _children(root)
    while heap:
        pid = heap.pop()
        below = _children(pid)
        heap += below or ()
        yield pid
    if heap is None:
        yield from _descendants_by_parents(root)


def _children(pid: int) -> list[int] | None:
    """Give the children of every thread; None if the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - half the time
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        line = _read(f"/proc/{pid}/task/{thread}/children")
        if line is None and stat(pid) is not None and not _tells_children():
            return None
        found += map(int, (line or b"").split())
    return found


def _tells_children() -> bool:
    return os.path.exists("/proc/1/task/1/children")  # noqa: PTH110 - as above


def _descendants_by_parents(root: int) -> list[int]:
    table = [found for name in os.listdir("/proc") if name.isdecimal() and (found := stat(int(name)))]  # noqa: PTH208
    below = {root}
    size = 0
    while size < len(below):
        size = len(below)
        below |= {each.pid for each in table if each.parent in below}
    return sorted(below - {root})


def _read(path: str) -> bytes | None:
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 65_536)
        finally:
            os.close(fd)
    return None

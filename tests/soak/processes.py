"""What the kernel says of the cluster's processes, read from /proc; see proc(5)."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TABLES = ("tcp", "tcp6", "udp", "udp6", "unix", "netlink")
INODE_COLUMN = {"tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "unix": 6, "netlink": 9}


class Process(NamedTuple):
    pid: int
    parent: int
    state: str
    threads: int
    resident_bytes: int


def table() -> dict[int, Process]:
    """Give every process of the machine."""
    found = (_read(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names alone
    return {each.pid: each for each in found if each is not None}


def _read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the name, may hold blanks and brackets.
    fields = text[text.rindex(")") + 2 :].split()
    return Process(pid, int(fields[1]), fields[0], int(fields[17]), int(fields[21]) * PAGE_BYTES)


def command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def below(processes: Mapping[int, Process], root: int, others: Iterable[int] = ()) -> list[Process]:
    """Give what descends from a process; neither `others` nor what descends from those."""
    children: dict[int, list[Process]] = {}
    for each in processes.values():
        children.setdefault(each.parent, []).append(each)
    apart, found, heap = set(others), [], [root]
    while heap:
        for each in children.get(heap.pop(), ()):
            if each.pid not in apart:
                found.append(each)
                heap.append(each.pid)
    return found


def socket_kinds() -> dict[str, str]:
    """Give the kind of every socket by its inode."""
    return dict(_socket_kinds())


def _socket_kinds() -> Iterator[tuple[str, str]]:
    for kind in TABLES:
        try:
            lines = Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > INODE_COLUMN[kind]:
                yield fields[INODE_COLUMN[kind]], kind.removesuffix("6")


def descriptors(pid: int, kinds: Mapping[str, str]) -> Counter[str]:
    """Count what a process has open: in all, and sockets by kind."""
    found: Counter[str] = Counter(descriptors=0)
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names alone
            found["descriptors"] += 1
            with suppress(OSError):
                target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - no path
                if target.startswith("socket:["):
                    found[f"{kinds.get(target[8:-1], 'other')} sockets"] += 1
    return found


def private_bytes(pid: int) -> int:
    """Give the memory that would be free without the process (USS)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))

"""What the processes of browsers hold, by /proc."""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tasks.browser.instance import Instance

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
SESSION_FIELD: Final = 3
"""Of /proc/pid/stat, behind the name in brackets: state, parent, group, session (proc(5))."""


def by_session(sessions: Collection[int]) -> Mapping[int, Mapping[int, int]]:
    """Give the unshared resident bytes (RSS without file and shared memory) of each process of the sessions."""
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for each in Path("/proc").glob("[0-9]*") if sessions else ():
        if each.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                session = int((each / "stat").read_text().rpartition(")")[2].split()[SESSION_FIELD])
                if session in sessions:
                    _, resident, shared, *_ = map(int, (each / "statm").read_text().split())
                    found[session][int(each.name)] = (resident - shared) * PAGE_BYTES
    return found


async def weighed(instances: Sequence[Instance], page_bytes: int) -> int:
    """Note what each browser holds, and kill the process of a page that holds too much; give how many were killed."""
    found = await asyncio.to_thread(by_session, {each.pid for each in instances})
    killed = 0
    for each in instances:
        mine = found.get(each.pid, {})
        each.memory_bytes = sum(mine.values())
        for pid, held in mine.items():
            if held > page_bytes and is_renderer(pid):
                killed += 1
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
    return killed


def is_renderer(pid: int) -> bool:
    """Say whether a process draws pages."""
    try:
        return b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

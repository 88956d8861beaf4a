"""What the processes of browsers hold, by /proc."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

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


def is_renderer(pid: int) -> bool:
    """Say whether a process draws pages."""
    try:
        return b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

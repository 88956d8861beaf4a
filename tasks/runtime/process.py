"""Whether the process behind a heartbeat has ended, as far as this process can tell.

A worker that crashed leaves a heartbeat for ten seconds. One that is started again under its name need not wait for
that if it sees for itself that the other is no more: a pid tells that within one run of a kernel and one process
namespace, where no two live processes share it.
"""

import os
from pathlib import Path
from typing import Final

import psutil

from gaia.store.nodes import Node

_KERNEL: Final = Path("/proc/sys/kernel/random/boot_id")
"""Random, and new with every start of a Linux kernel; see random(4)."""

_NAMESPACE: Final = Path("/proc/self/ns/pid")
"""Its inode names the process namespace; see namespaces(7)."""

REUSED_S: Final = 60.0
"""A process created so long after a worker started is another under its pid; less may be a clock that was set."""


def machine() -> str:
    """Name where this process's pid means something; "" if that cannot be told."""
    try:
        return f"{_KERNEL.read_text(encoding='ascii').strip()}:{_NAMESPACE.stat().st_ino}"
    except OSError:
        return ""


def has_ended(node: Node) -> bool:
    """Say whether a node's process is known to have ended; False where this process cannot see it."""
    if not node.machine or node.machine != machine():
        return False
    if node.pid == os.getpid():
        return True
    try:
        found = psutil.Process(node.pid)
        return found.status() == psutil.STATUS_ZOMBIE or found.create_time() > node.started_at + REUSED_S
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False

"""Keep hold of every process below this one, daemonised ones too, so that nothing is left behind.

A child subreaper (prctl(2)) becomes the parent of orphans among its descendants; killing what `psutil` sees below it,
again and again until nothing is left, therefore reaches them all.
"""

import os
import time
from typing import Final

import psutil

SWEEP_BOUND_S: Final = 5.0


def reap() -> list[tuple[int, int]]:
    """Collect every child that ended, adopted ones too: pairs of pid and exit code, negative for a signal."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def sweep(bound_s: float = SWEEP_BOUND_S) -> int:
    """Kill and reap all descendants; give how many outlived `bound_s`, which only uninterruptible sleep makes them."""
    ends_at = time.monotonic() + bound_s
    while True:
        reap()
        left = psutil.Process().children(recursive=True)
        if not left or time.monotonic() >= ends_at:
            return len(left)
        for each in left:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=0.05)

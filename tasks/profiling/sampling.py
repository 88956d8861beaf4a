"""CPU and wall time by stack, sampled from a thread of this process.

At each sample every thread's CPU clock is read (pthread_getcpuclockid(3)), and what it has used since the last sample
goes to the stack that it is in now. So a thread that waits costs nothing, and the numbers add up to what the process
has really used in Python threads. A call in C that holds the interpreter's lock delays the sample; what it used is then
told of the stack that called it.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from tasks.profiling.profile import Kind, Profile, stack_of

INTERVAL_S: Final = 0.01
"""A hundred samples a second."""

KINDS: Final = (Kind("samples", "count"), Kind("wall", "nanoseconds"), Kind("cpu", "nanoseconds"))


def sample(seconds: float, wait: Callable[[float], object] | None = None, *, interval_s: float = INTERVAL_S) -> Profile:
    """Sample for so long, in the calling thread, which is left out. `wait` sleeps, and may end early by raising."""
    wait = wait or threading.Event().wait
    found, own = Profile(KINDS), threading.get_ident()
    began = looked_at = time.monotonic_ns()
    used = _cpu_ns(own)
    while looked_at - began < seconds * 1e9:
        wait(interval_s)
        now, clocks = time.monotonic_ns(), _cpu_ns(own)
        frames = sys._current_frames()  # noqa: SLF001 - the one way to see the stacks of other threads
        for ident, clock in clocks.items():
            frame = frames.get(ident)
            if frame is not None:
                found.add(stack_of(frame), 1, now - looked_at, max(0, clock - used.get(ident, clock)))
        del frames
        looked_at, used = now, clocks
    found.seconds = (looked_at - began) / 1e9
    return found


def _cpu_ns(own: int) -> dict[int, int]:
    """Give the CPU time of every Python thread but one."""
    found = {}
    for thread in threading.enumerate():
        if thread.ident is not None and thread.ident != own and thread.is_alive():
            try:
                found[thread.ident] = time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))
            except OSError:
                continue  # it has ended meanwhile
    return found

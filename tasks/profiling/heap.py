"""What was allocated while somebody looked, and lives still, by stack.

tracemalloc makes allocations many times as slow while it is on, so it is on for the seconds of the profile alone. What
was allocated before is not seen.
"""

import threading
import tracemalloc
from collections.abc import Callable
from typing import Final

from tasks.profiling.profile import Frame, Kind, Profile

FRAMES: Final = 24
KINDS: Final = (Kind("inuse_objects", "count"), Kind("inuse_space", "bytes"))


def heap(seconds: float, wait: Callable[[float], object] | None = None) -> Profile:
    """Trace for so long."""
    wait = wait or threading.Event().wait
    was_on = tracemalloc.is_tracing()
    if not was_on:
        tracemalloc.start(FRAMES)
    try:
        wait(seconds)
        snapshot = tracemalloc.take_snapshot()
    finally:
        if not was_on:
            tracemalloc.stop()
    found = Profile(KINDS, seconds)
    for each in snapshot.filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)]).statistics("traceback"):  # noqa: FBT003 - its signature
        stack = tuple(Frame(f"line {frame.lineno}", frame.filename, frame.lineno) for frame in each.traceback)
        found.add(stack, each.count, each.size)
    return found

"""A process that runs out of descriptors, for a moment: one of its own, as the limit is for all threads."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Leave this process so many descriptors that it may still open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    taken = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
    try:
        while taken[-1] < highest:  # those below that are free
            taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, *taken) + 1 + count, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in taken:
            os.close(each)


def said(script: str) -> list[str]:
    """Run a script in a process of its own, in which `free_descriptors` is known; give the lines that it wrote."""
    whole = f"from tests.support.descriptors import free_descriptors\n{script}"
    done = subprocess.run([sys.executable, "-c", whole], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return done.stdout.splitlines()

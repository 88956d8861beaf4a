"""Start a program that dies with its starter: `python -I -S tether.py PARENT_PID program argument...`.

The bond is made after the fork and before the exec, without a `preexec_fn` in a process that may have threads.
Nothing but the standard library is imported: this file runs without site-packages.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""<linux/prctl.h>. The signal comes when the starting *thread* ends, and survives execve; see prctl(2)."""


def tie(parent: int, signum: int) -> bool:
    """Have the kernel signal this process when its parent ends; False if `parent` had already ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # Whoever ended before the call above left no signal, but another parent.
    return os.getppid() == parent


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent, *argv = sys.argv[1:]
    if not tie(int(parent), signal.SIGKILL):
        sys.exit(1)
    try:
        os.execv(argv[0], argv)  # noqa: S606 - the program is the caller's, and no shell is wanted
    except OSError as failure:
        print(f"{argv[0]} could not be started: {failure.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()

"""Starting a program: what it inherits and what it may use.

A keeper takes on itself what its programs are to inherit (resource limits, directory, network), and then spawns: by
posix_spawn(3), which in glibc neither copies page tables nor runs Python in the child, unlike fork(2). A hard limit
cannot be raised again without privilege, so all programs of one keeper have the same.
"""

import os
import resource
import signal
from contextlib import suppress
from typing import Any, Final

from tasks.process.launcher import kernel

OOM_SCORE: Final = 800
"""Of 1000: out of memory, the kernel ends programs before what watches them, proc_pid_oom_score_adj(5)."""

MEMORY_ROOM: Final = 4
DATA_LEAST_BYTES: Final = 64 * 1024 * 1024
"""Without a group, one process may map this many times the limit of writable private memory, so that what grows
between two looks has an end. RLIMIT_DATA counts no reservation that cannot be written (getrlimit(2), since Linux 4.7);
RLIMIT_AS does, and stops runtimes that reserve much and use little. The keeper has to live within it, too."""

_DEFAULT: Final = (
    *(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP),
    *(signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
)


def spawn(request: dict[str, Any], fds: tuple[int, ...], *, sampled: bool) -> int:
    """Start the program as the leader of a session; give its pid once execve(2) has succeeded.

    `fds` are the working directory, stdin, stdout and stderr, each above 2.

    Raises:
        OSError: as execve(2) failed.
    """
    directory, *streams = fds
    _confine(request, sampled=sampled)
    os.fchdir(directory)
    before = _oom_score(OOM_SCORE)
    try:
        return os.posix_spawn(
            request["executable"],
            request["argv"],
            request["env"],
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(streams)],
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT,
        )
    finally:
        os.chdir("/")
        if before is not None:
            _oom_score(before)


def _oom_score(score: int) -> int | None:
    """Set this process's own, which the program inherits from its first instruction on; give what it was."""
    # A container may show /proc without letting it be written.
    with suppress(OSError), open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:  # noqa: PTH123 - half the time
        before = int(file.read())
        file.write(b"%d" % score)
        return before
    return None


def _confine(request: dict[str, Any], *, sampled: bool) -> None:
    if not request["network"]:
        try:
            kernel.leave_network()
        except OSError as failure:
            raise OSError(failure.errno, "this kernel permits no network namespace") from None
    limits = [(resource.RLIMIT_NOFILE, request["open_files"]), (resource.RLIMIT_FSIZE, request["file_bytes"])]
    if sampled:
        data_bytes = max(DATA_LEAST_BYTES, request["memory_bytes"] * MEMORY_ROOM)
        limits.append((resource.RLIMIT_DATA, data_bytes))
    for kind, limit in limits:
        _, hard = resource.getrlimit(kind)
        if limit is not None and (hard == resource.RLIM_INFINITY or limit < hard):
            resource.setrlimit(kind, (limit, limit))

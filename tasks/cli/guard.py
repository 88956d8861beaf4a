"""A parent that outlives a killed supervisor and sweeps what it had started.

`gaia up` is two processes, the guard and the supervisor below it, and each survives a SIGKILL of the other just long
enough: without its guard the supervisor gets SIGTERM and stops in order; without its supervisor the guard kills every
descendant. Killing both still ends the supervised programs themselves (see `tasks.cli.tether`).
"""

import os
import signal
import sys
from typing import Final

import click

from tasks.cli import descendants
from tasks.cli.tether import tie
from tasks.process.launcher import kernel

_FORWARDED: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_WATCHED: Final = _FORWARDED | {signal.SIGCHLD}


def stand_guard() -> None:
    """Fork; return in the child. The parent forwards signals, waits, sweeps, and exits as the child did.

    Raises:
        click.ClickException: where the kernel is not Linux.
    """
    if sys.platform != "linux":
        raise click.ClickException("this command needs Linux; elsewhere, start the lines of the Procfile")
    # Blocked, a signal waits for `sigwait`: none is lost between the fork and the loop.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    kernel.adopt_orphans()
    guard = os.getpid()
    pid = os.fork()
    if pid:
        _exit_like(_outlive(pid))
    # A session of its own: Ctrl-C in the terminal reaches the guard alone, which hands it on once.
    os.setsid()
    if not tie(guard, signal.SIGTERM):
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)


def _outlive(pid: int) -> int:
    """Give the exit code of the child, once it has ended and nothing below this process is left."""
    while True:
        signum = signal.sigwait(_WATCHED)
        if signum in _FORWARDED:
            os.kill(pid, signum)
        ended = dict(descendants.reap())
        if pid in ended:
            descendants.sweep()
            return ended[pid]


def _exit_like(code: int) -> None:
    if code < 0:
        name = signal.Signals(-code).name
        print(f"gaia: the supervisor was ended by {name}; what it had started was killed", file=sys.stderr)
        code = 128 - code
    sys.stderr.flush()
    # The child ran everything that was to run at exit.
    os._exit(code)

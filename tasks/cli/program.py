"""One supervised program: its process, its output, its end and its restarts.

The supervisor's loop owns every `Child`; nothing here blocks, and nothing here is safe to share between threads.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tasks.cli import tether
from tasks.cli.output import Lines

READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Program:
    """What to start. `env` is the whole environment; `grace_s` is the time between SIGTERM and SIGKILL."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    grace_s: float = 10.0
    notifies: bool = False
    """It says `READY=1` when it serves, see `tasks.cli.notify`."""


@dataclass
class Backoff:
    """How long to wait before a program is started again: doubling, and short again after a minute of life."""

    first_s: float = 0.5
    cap_s: float = 30.0
    forgotten_after_s: float = 60.0
    _next_s: float = 0.0

    def after(self, lived_s: float) -> float:
        """Give the seconds to wait, after a life of that many."""
        if lived_s >= self.forgotten_after_s or not self._next_s:
            self._next_s = self.first_s
        wait_s, self._next_s = self._next_s, min(self.cap_s, 2 * self._next_s)
        return wait_s


class Child:
    """A program and the process that runs it at the moment, if any does."""

    def __init__(self, program: Program) -> None:
        """Start nothing yet."""
        self.program: Final = program
        self.backoff: Final = Backoff()
        self.ready = False
        self.due_at: float | None = None
        """When it is to be started again; None if it is not."""
        self.started_at = 0.0
        self.killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = Lines()

    @property
    def pid(self) -> int | None:
        """The running process, None if there is none."""
        return self._process.pid if self._process else None

    @property
    def pipe(self) -> IO[bytes]:
        """What it writes; only while it runs."""
        if self._process is None or self._process.stdout is None:
            raise RuntimeError(f"{self.program.name} does not run")
        return self._process.stdout

    def start(self, now: float) -> None:
        """Start the process, tied to this one and in a session of its own: Ctrl-C reaches the supervisor alone."""
        argv = (sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid()), *self.program.argv)
        self._process = subprocess.Popen(  # noqa: S603 - an argument vector of our own, no shell
            argv,
            env=dict(self.program.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        os.set_blocking(self.pipe.fileno(), False)
        self._lines = Lines()
        self.ready, self.killed = not self.program.notifies, False
        self.started_at, self.due_at = now, None

    def read(self) -> tuple[list[str], bool]:
        """Give the lines that have come, and whether more may follow."""
        data = self._take()
        if data is None:
            return [], True
        return (self._lines.feed(data), True) if data else (self._lines.flush(), False)

    def terminate(self) -> None:
        """Ask the process to stop; harmless if it has."""
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and its group."""
        self.killed = True
        self._signal(os.killpg, signal.SIGKILL)

    def ended(self, code: int) -> list[str]:
        """Take note that the process was reaped; give its last lines. What descendants write later is lost."""
        if self._process is None:
            return []
        last = []
        # A pipe holds 64 KiB; a bound, since a surviving descendant may go on filling it.
        for _ in range(16):
            data = self._take()
            if not data:
                break
            last += self._lines.feed(data)
        last += self._lines.flush()
        self.pipe.close()
        # Reaped by the supervisor's waitpid(-1): Popen must not wait for a pid that may be somebody else's by now.
        self._process.returncode = code
        self._process, self.ready = None, False
        return last

    def _take(self) -> bytes | None:
        """Read what is there: None if nothing is, empty at the end."""
        try:
            return os.read(self.pipe.fileno(), READ_BYTES)
        except BlockingIOError:
            return None

    def _signal(self, send: Callable[[int, int], None], signum: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                send(self._process.pid, signum)


def ending(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

"""One run of a program: its pipes, its limits, its end.

A `Supervisor` owns the child and its pipes for one call, in the calling thread. If the worker is killed the program
goes on as a child of init: nothing outside the worker watches it.
"""

import os
import selectors
import signal
import subprocess
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Final, Literal

from gaia.contracts import process
from gaia.errors import TimedOut
from tasks.process.tree import SAMPLE_S, ProcessTable, Tree
from tasks.process.waker import Waker
from tasks.scope import Scope

KILL_S: Final = 5.0
"""How long a killed tree may take to die before the call gives it up."""
_CHUNK_BYTES: Final = 1 << 16
"""The capacity of a pipe, pipe(7)."""

Cause = Literal["timeout", "memory", "output", "cancelled", "worker_stopped", "deadline"]


@dataclass(frozen=True)
class Bounds:
    """What a run may use."""

    timeout_s: float
    memory_bytes: int
    output_bytes: int
    grace_s: float


@dataclass
class Captured:
    """What came out of a pipe, up to a limit; the rest is read and dropped, so that the program does not block."""

    limit_bytes: int
    body: bytearray = field(default_factory=bytearray)
    truncated: bool = False

    def take(self, chunk: bytes) -> None:
        """Keep what fits."""
        room = self.limit_bytes - len(self.body)
        self.body += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room


class Supervisor:
    """Watches a child that leads its own session until it and its tree have ended."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        *,
        stdin: bytes,
        bounds: Bounds,
        scope: Scope,
        table: ProcessTable,
        stopping: threading.Event,
        waker: Waker,
    ) -> None:
        """Take over the child, which nobody else may wait for."""
        self._child = child
        self._bounds = bounds
        self._scope = scope
        self._stopping = stopping
        self._waker = waker
        self._rest = memoryview(stdin)
        self._tree = Tree(child.pid, table)
        self._selector = selectors.PollSelector()
        self._output = {each: Captured(bounds.output_bytes) for each in (_open(child.stdout), _open(child.stderr))}
        self._now = scope.clock.monotonic
        self._started_at = self._ended_at = self._next_look = self._now()
        self._timeout_at = self._started_at + bounds.timeout_s
        self._kill_at = 0.0
        self._cause: Cause | None = None
        self._ended = False
        self._cpu_s = 0.0

    def watch(self) -> process.Exited:
        """Wait for the end, whichever way it comes; the whole tree has ended then.

        What a program leaves running when it ends by itself is killed at once. A tree that is stopped gets SIGTERM and
        the grace time first, unless it has too much memory: it would grow on.

        Raises:
            Cancelled, DeadlineExceeded: after the tree was stopped, up to the grace time later.
            TimedOut: if the program did not die of SIGKILL within `KILL_S`.
        """
        with ExitStack() as closing:
            closing.callback(self._close)
            self._register(closing)
            self._tree.look(fresh=True)
            while self._goes_on():
                self._step()
        if self._child.returncode is None:
            raise TimedOut(self._scope.operation, self._bounds.timeout_s)
        if self._cause in ("cancelled", "deadline"):
            self._scope.check()
        return self._exited(self._child.returncode)

    def _register(self, closing: ExitStack) -> None:
        pidfd = os.pidfd_open(self._child.pid)
        closing.callback(os.close, pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ, partial(self._end, pidfd))
        wake = self._waker.fd
        self._selector.register(wake, selectors.EVENT_READ, partial(self._selector.unregister, wake))
        for stream in self._output:
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, partial(self._read, stream))
        if self._child.stdin is not None:
            os.set_blocking(self._child.stdin.fileno(), False)
            self._selector.register(self._child.stdin, selectors.EVENT_WRITE, partial(self._write, self._child.stdin))

    def _goes_on(self) -> bool:
        if self._cause is None:
            return not self._ended
        # The grace time is for the whole tree, also when its first process has ended.
        return self._now() < self._kill_at and not (self._ended and not self._tree.look(fresh=True))

    def _step(self) -> None:
        due = min(self._timeout_at, self._scope.ends_at) if self._cause is None else self._kill_at
        for key, _ in self._selector.select(max(0.0, min(self._next_look, due) - self._now())):
            key.data()
        if self._ended and self._cause is None:
            return
        if self._now() >= self._next_look:
            self._tree.look()
            self._next_look = self._now() + SAMPLE_S
        if self._cause is None:
            self._cause = self._overrun()
            if self._cause is not None:
                self._tree.signal(signal.SIGTERM)
                self._kill_at = self._now() + self._bounds.grace_s
        if self._cause is not None and self._too_large():
            self._kill_at = self._now()

    def _overrun(self) -> Cause | None:
        """Give the first reason to stop the tree."""
        now = self._now()
        signs: tuple[tuple[Cause, bool], ...] = (
            ("cancelled", self._scope.cancelled.is_set()),
            ("worker_stopped", self._stopping.is_set()),
            ("deadline", now >= self._scope.ends_at),
            ("timeout", now >= self._timeout_at),
            ("memory", self._too_large()),
            ("output", self._truncated()),
        )
        return next((cause for cause, holds in signs if holds), None)

    def _too_large(self) -> bool:
        return self._tree.memory_bytes > self._bounds.memory_bytes

    def _end(self, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        self._ended = True
        self._ended_at = self._now()

    def _read(self, stream: IO[bytes]) -> bool:
        """Take a chunk; say whether there may be more at once."""
        try:
            chunk = os.read(stream.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return False
        self._output[stream].take(chunk)
        if not chunk:
            self._selector.unregister(stream)
            stream.close()
        return bool(chunk)

    def _write(self, stream: IO[bytes]) -> None:
        try:
            self._rest = self._rest[os.write(stream.fileno(), self._rest[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._rest = memoryview(b"")  # the program does not want the rest
        if not self._rest:
            self._selector.unregister(stream)
            stream.close()

    def _close(self) -> None:
        """Kill what is left of the tree, take what is left in the pipes, and let the child go."""
        self._tree.kill(within_s=KILL_S)
        for stream, captured in self._output.items():
            # A process that escaped the tree may hold the pipe open and fill it: never wait, never past the limit.
            while self._registered(stream) and not captured.truncated and self._read(stream):
                pass
        self._selector.close()
        for each in (self._child.stdin, self._child.stdout, self._child.stderr):
            if each is not None:
                each.close()
        self._reap()

    def _registered(self, stream: IO[bytes]) -> bool:
        return not stream.closed and stream in self._selector.get_map()

    def _reap(self) -> None:
        pid, status, usage = os.wait4(self._child.pid, os.WNOHANG)
        if pid == 0:
            return
        # Popen never waits for a child that has a return code.
        self._child.returncode = os.waitstatus_to_exitcode(status)
        self._cpu_s = max(self._tree.cpu_s, usage.ru_utime + usage.ru_stime)
        if not self._ended:
            self._ended_at = self._now()

    def _truncated(self) -> bool:
        return any(each.truncated for each in self._output.values())

    def _exited(self, code: int) -> process.Exited:
        stdout, stderr = (bytes(each.body) for each in self._output.values())
        return process.Exited(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            reason=self._reason(code),
            stdout=stdout,
            stderr=stderr,
            truncated=self._truncated(),
            wall_s=self._ended_at - self._started_at,
            cpu_s=self._cpu_s,
            peak_memory_bytes=self._tree.peak_memory_bytes,
            enforcement="sampled",
        )

    def _reason(self, code: int) -> process.Reason:
        if self._cause is not None and self._cause != "deadline":
            return self._cause
        if self._truncated():
            return "output"  # it ended before it could be stopped for it
        return "signal" if code < 0 else "exited"


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the child has no pipe for its output")
    return stream

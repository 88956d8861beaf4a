"""One program: its keeper, its streams, its end.

A `Program` is driven by the thread that turns its loop; every other thread only asks, or asks the keeper. It has ended
when the keeper has said so: then no process of it is left.
"""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from gaia.contracts import process
from tasks.process.bounds import Bounds
from tasks.process.capture import Capture
from tasks.process.keepers import Keeper
from tasks.process.launcher import messages, tree
from tasks.process.loop import READ, WRITE, Loop

_CHUNK_BYTES: Final = 1 << 16
"""The capacity of a pipe by default, pipe(7)."""

STREAMS: Final[tuple[process.Stream, process.Stream]] = ("stdout", "stderr")


@dataclass(frozen=True)
class Pipes:
    """The worker's ends, none of which blocks; `stdin` is None if there is nothing to write."""

    stdin: int | None
    stdout: int
    stderr: int


class Program:
    """A program that has been started."""

    def __init__(  # noqa: PLR0913 - what makes a program; all by name
        self,
        *,
        keeper: Keeper,
        pidfd: int,
        pipes: Pipes,
        loop: Loop,
        bounds: Bounds,
        enforcement: process.Enforcement,
        stdin: bytes,
        keep_stdin: bool = False,
        tail: bool = False,
        most_bytes: int | None = None,
    ) -> None:
        """Take over keeper and descriptors. More than `most_bytes` of a stream ends the program."""
        self.keeper = keeper
        self.pid = _pid_of(pidfd)
        # Reentrant: a cancel may come in the thread that holds it.
        self.changed = threading.Condition(threading.RLock())
        self.started_at = time.monotonic()
        self.exited: process.Exited | None = None
        self.reusable = False
        self.clean = True
        self.on_output: Callable[[], None] | None = None
        self.captures = {each: Capture(bounds.output_bytes, tail) for each in STREAMS}
        self._pidfd: int | None = pidfd
        self._loop = loop
        self._bounds = bounds
        self._enforcement = enforcement
        self._most_bytes = most_bytes
        self._on_end: Callable[[], None] | None = None
        self._fds: dict[process.Stream, int | None] = {"stdout": pipes.stdout, "stderr": pipes.stderr}
        self._stdin = pipes.stdin
        self._rest = memoryview(stdin)
        self._keep_stdin = keep_stdin
        self.cause: str | None = None

    def attach(self) -> None:
        """Begin to listen."""
        self._loop.add(self.keeper.channel.fileno(), READ, self._hear)
        for name, fd in self._fds.items():
            if fd is not None:
                self._loop.add(fd, READ, _bound(self._read, name))
        with self.changed:
            if self._stdin is not None:
                self._loop.add(self._stdin, 0, self._write)
                self._flush()

    def stat(self) -> tree.Stat | None:
        """Look at the process, before `attach`; None once it was waited for: its pid may be another's from then on."""
        found = tree.stat(self.pid)
        return found if self._pidfd is not None and _pid_of(self._pidfd) == self.pid else None

    @property
    def ended(self) -> bool:
        """Say whether nothing of it is left."""
        return self.exited is not None

    @property
    def output_bytes(self) -> int:
        """Count what it has written."""
        return sum(each.total_bytes for each in self.captures.values())

    def stop(self, cause: str, grace_s: float) -> None:
        """Have the tree ended: SIGTERM, and SIGKILL after the grace. The first cause is what its end is put down to."""
        self.cause = self.cause or cause
        self._tell({"stop": cause, "grace_s": grace_s})

    def signal(self, number: int, *, whole: bool) -> None:
        """Send a signal to the program or its whole tree; one that has ended takes none."""
        self._tell({"signal": number, "tree": whole})

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; say whether it came. Not for the thread that turns the loop."""
        with self.changed:
            return self.changed.wait_for(lambda: self.ended, timeout_s)

    def when_ended(self, act: Callable[[], None]) -> None:
        """Do something once at its end, in the thread that turns the loop; here and now if it has ended."""
        with self.changed:
            if not self.ended:
                self._on_end = act
                return
        act()

    @property
    def takes_input(self) -> bool:
        """Say whether its stdin is open."""
        return self._stdin is not None

    @property
    def buffered_bytes(self) -> int:
        """Count what it has not read yet of what was written."""
        return len(self._rest)

    def write(self, data: bytes, *, close: bool) -> None:
        """Put bytes behind those that are to be written; the lock of `changed` is held."""
        self._rest = memoryview(bytes(self._rest) + data)
        self._keep_stdin = self._keep_stdin and not close
        self._flush()

    def abandon(self) -> None:
        """Let the keeper go, which kills the tree, and take no more: for one that did not end in time."""
        self._finish({"ended": None, "cause": self.cause, "clean": False}, drained=False)

    def _tell(self, body: dict[str, Any]) -> None:
        # Under the lock: a keeper whose program has ended may be another program's by now.
        with self.changed:
            if not self.ended:
                with suppress(OSError):  # the keeper has gone; its end is on the way
                    messages.send(self.keeper.channel, body)

    def _hear(self) -> None:
        try:
            message = messages.receive(self.keeper.channel)
        except BlockingIOError:
            return
        except OSError:
            message = messages.Message({})
        if not message.body:
            self._finish({"ended": signal.SIGKILL, "cause": self.cause})
        elif "ended" in message.body:
            self._finish(message.body)

    def _read(self, name: process.Stream) -> bool:
        """Take a chunk; say whether there may be more at once."""
        fd, capture = self._fds[name], self.captures[name]
        if fd is None:
            return False
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        with self.changed:
            capture.take(chunk)
            if not chunk:
                self._close(name)
            self.changed.notify_all()
        if self.cause is None and self._over(capture):
            self.stop("output", self._bounds.grace_s)
        if self.on_output is not None:
            self.on_output()
        return bool(chunk)

    def _over(self, capture: Capture) -> bool:
        return self._most_bytes is not None and capture.total_bytes > self._most_bytes

    def _close(self, name: process.Stream) -> None:
        fd = self._fds[name]
        if fd is not None:
            self._loop.remove(fd)
            os.close(fd)
        self._fds[name], self.captures[name].ended = None, True

    def _write(self) -> None:
        with self.changed:
            self._flush()

    def _flush(self) -> None:
        """Write what the pipe takes; close it when all is written, unless it is to stay open."""
        if self._stdin is None:
            return
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._stdin, self._rest[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            self._loop.change(self._stdin, WRITE)
            self.changed.notify_all()
            return
        except BrokenPipeError:
            self._rest, self._keep_stdin = memoryview(b""), False  # the program does not want the rest
        if self._keep_stdin:
            self._loop.change(self._stdin, 0)
        else:
            self._close_stdin()
        self.changed.notify_all()

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            self._loop.remove(self._stdin)
            os.close(self._stdin)
            self._stdin = None

    def _finish(self, report: dict[str, Any], *, drained: bool = True) -> None:
        if self.ended:
            return
        self._loop.remove(self.keeper.channel.fileno())
        for name in STREAMS if drained else ():
            self._drain(name)
        with self.changed:
            for name in STREAMS:
                self._close(name)
            self._close_stdin()
            self._rest = memoryview(b"")
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
            self.reusable = bool(report.get("again"))
            self.clean = bool(report.get("clean", True))
            self.exited = self._exited(report)
            on_end = self._on_end
            self.changed.notify_all()
        if on_end is not None:
            on_end()

    def _drain(self, name: process.Stream) -> None:
        """Take what is left in a pipe, and no more than it holds: its end may have gone to a process elsewhere."""
        fd = self._fds[name]
        if fd is None:
            return
        for _ in range(fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // _CHUNK_BYTES + 2):
            if self._over(self.captures[name]) or not self._read(name):
                break

    def _exited(self, report: dict[str, Any]) -> process.Exited:
        status = report["ended"]
        code = None if status is None else os.waitstatus_to_exitcode(status)
        stdout, stderr = (self.captures[each] for each in STREAMS)
        return process.Exited(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            reason=self._reason(report.get("cause"), code),
            stdout=stdout.settle(),
            stderr=stderr.settle(),
            truncated=stdout.truncated or stderr.truncated,
            wall_s=float(report.get("wall_s", time.monotonic() - self.started_at)),
            cpu_s=float(report.get("cpu_s", 0.0)),
            peak_memory_bytes=max(0, int(report.get("peak_bytes", 0))),
            enforcement=self._enforcement,
            stdout_bytes=stdout.total_bytes,
            stderr_bytes=stderr.total_bytes,
        )

    def _reason(self, cause: Any, code: int | None) -> process.Reason:
        found: process.Reason = "exited" if code is not None and code >= 0 else "signal"
        if cause is not None and cause != "deadline":
            found = cause
        elif any(self._over(each) for each in self.captures.values()):
            found = "output"  # it ended before it could be stopped for it
        return found


def _bound(read: Callable[[process.Stream], bool], name: process.Stream) -> Callable[[], None]:
    def run() -> None:
        read(name)

    return run


def _pid_of(pidfd: int) -> int:
    """Give the pid in this process's namespace: a keeper counts in its own; see proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:  # noqa: PTH123 - half the time, for each start
        return next((int(line.split()[1]) for line in lines if line.startswith("Pid:")), -1)

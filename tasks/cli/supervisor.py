"""Run several programs as one: show what they write, restart what ends, stop them in order, leave nothing behind.

A `Supervisor` owns the child processes, one thread (the caller's) and this process's signal handlers while its `with`
block lasts. Programs start in stages and stop in the opposite order. If this process is killed, the kernel kills each
program (`tasks.cli.tether`); what those had started is the guard's to sweep (`tasks.cli.guard`).
"""

import os
import secrets
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Final, Self

import click

from tasks.cli import descendants, notify
from tasks.cli.output import Output
from tasks.cli.program import Child, Program, ending
from tasks.process.launcher import kernel

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UCRED: Final = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""

_TURN_S: Final = 0.1
_KILL_BOUND_S: Final = 5.0
"""A killed process that is not gone by then sleeps in the kernel."""


class StopRequested(Exception):  # noqa: N818 - no error: somebody wants an end
    """A signal asks for the end. The `with` block of the supervisor takes it."""


class StartFailed(click.ClickException):
    """A program ended, or did not get ready, while the programs start up. The text names it."""


class Supervisor:
    """A `with` block in which programs run; whatever still runs at its end is stopped."""

    def __init__(self, output: Output, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start nothing yet."""
        self._output = output
        self._clock = clock
        self._stages: list[list[Child]] = []
        self._failure: str | None = None
        self._asked = self._starting = self._stopping = self._hurried = False
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        """Take the signals, and the orphans of the programs."""
        kernel.adopt_orphans()
        self._listen_for_readiness()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.settimeout(0)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._on_signals)
        self._old_handlers = {each: signal.signal(each, _wake_only) for each in (*_STOPPING, signal.SIGCHLD)}
        self._old_wakeup = signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop everything. A `StopRequested` ends here."""
        try:
            self._stop()
        finally:
            signal.set_wakeup_fd(self._old_wakeup)
            for signum, handler in self._old_handlers.items():
                signal.signal(signum, handler)
            for each in (self._wake_reader, self._wake_writer, self._notices, self._selector):
                each.close()
        return kind is not None and issubclass(kind, StopRequested)

    def start(self, *programs: Program) -> None:
        """Start programs together, as one stage: stages stop in the opposite order, those within one at once."""
        asking = {notify.VARIABLE: self._notice_address}
        stage = [Child(replace(each, env={**each.env, **asking}) if each.notifies else each) for each in programs]
        self._stages.append(stage)
        for child in stage:
            self._start(child)

    def wait(self, for_what: Callable[[], str], done: Callable[[], bool], bound_s: float) -> None:
        """Serve the programs until `done`, which is asked ten times a second.

        Raises:
            StartFailed: if a program ends meanwhile, or `bound_s` passes.
            StopRequested: if a signal asks for the end.
        """
        ends_at = self._clock() + bound_s
        self._failure, self._starting = None, True
        while not done():
            self._turn(_TURN_S)
            if self._failure:
                raise StartFailed(self._failure)
            if self._clock() >= ends_at:
                raise StartFailed(f"{for_what()} was not ready within {bound_s:g} s")
        self._starting = False

    def wait_ready(self, bound_s: float) -> None:
        """Serve the programs until each that notifies has said that it is ready.

        Raises:
            StartFailed, StopRequested: as `wait`.
        """

        def waiting() -> str:
            return ", ".join(child.program.name for child in self._children() if not child.ready)

        self.wait(waiting, lambda: not waiting(), bound_s)

    def run(self) -> None:
        """Serve the programs until a signal asks for the end.

        Raises:
            StopRequested: then.
        """
        while True:
            self._turn(None)

    # --- one turn of the loop

    def _turn(self, wait_s: float | None) -> None:
        """Wait for something to happen, at most so long, and see to it."""
        for key, _ in self._selector.select(self._patience_s(wait_s)):
            key.data()
        self._reap()
        now = self._clock()
        for child in self._children():
            if child.due_at is not None and now >= child.due_at:
                self._start(child)
        if self._asked and not self._stopping:
            raise StopRequested

    def _patience_s(self, wait_s: float | None) -> float | None:
        due = [child.due_at - self._clock() for child in self._children() if child.due_at is not None]
        bounds = [*due, *([] if wait_s is None else [wait_s])]
        return max(0.0, min(bounds)) if bounds else None

    def _on_signals(self) -> None:
        with suppress(BlockingIOError):
            for signum in self._wake_reader.recv(4096):
                if signum in _STOPPING:
                    self._hurried = self._stopping
                    self._asked = True

    def _listen_for_readiness(self) -> None:
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.settimeout(0)
        # The kernel adds the sender's pid to each message, so nobody else can speak for a program.
        self._notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        # In the abstract namespace: no file to remove, and no limit of 108 bytes on the path above it.
        name = f"gaia-{os.getpid()}-{secrets.token_hex(8)}"
        self._notices.bind(f"\0{name}")
        self._notice_address = f"@{name}"
        self._selector.register(self._notices, selectors.EVENT_READ, self._on_notice)

    def _on_notice(self) -> None:
        data, extra, _, _ = self._notices.recvmsg(4096, socket.CMSG_SPACE(_UCRED.size))
        pids = [
            _UCRED.unpack(body)[0]
            for level, kind, body in extra
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(body) == _UCRED.size
        ]
        for child in self._children():
            if child.pid in pids and notify.READY in data.splitlines():
                child.ready = True

    # --- children

    def _children(self) -> list[Child]:
        return [child for stage in self._stages for child in stage]

    def _start(self, child: Child) -> None:
        try:
            child.start(self._clock())
        except OSError as failure:
            self._schedule(child, f"could not be started ({failure.strerror})")
            return
        self._selector.register(child.pipe, selectors.EVENT_READ, lambda: self._show(child))

    def _show(self, child: Child) -> None:
        lines, more = child.read()
        for line in lines:
            self._output.line(child.program.name, line)
        if not more:
            # It closed its output and may live on.
            self._selector.unregister(child.pipe)

    def _reap(self) -> None:
        ended = dict(descendants.reap())
        for child in self._children():
            if child.pid in ended:
                self._on_end(child, ended[child.pid])

    def _on_end(self, child: Child, code: int) -> None:
        with suppress(KeyError):
            self._selector.unregister(child.pipe)
        for line in child.ended(code):
            self._output.line(child.program.name, line)
        if not self._stopping:
            self._schedule(child, f"ended with {ending(code)}")

    def _schedule(self, child: Child, what: str) -> None:
        """Have a child started again, later the oftener it fails."""
        now = self._clock()
        wait_s = child.backoff.after(now - child.started_at)
        child.due_at = now + wait_s
        self._failure = f"{child.program.name} {what}; its lines above tell why"
        if not self._starting:
            self._output.line(child.program.name, f"{what}; it starts again in {wait_s:g} s")

    # --- the end

    def _stop(self) -> None:
        self._stopping = True
        for child in self._children():
            child.due_at = None
        for stage in reversed(self._stages):
            self._stop_stage(stage)
        left = descendants.sweep()
        if left:
            self._output.say(f"gaia: {left} processes cannot be killed: the kernel holds them")

    def _stop_stage(self, stage: list[Child]) -> None:
        """Stop some children at once. Bounded by the longest grace among them and `_KILL_BOUND_S`."""
        told_at = self._clock()
        for child in stage:
            child.terminate()
        gives_up_at = told_at + max(child.program.grace_s for child in stage) + _KILL_BOUND_S
        while running := [child for child in stage if child.pid is not None]:
            now = self._clock()
            if now >= gives_up_at:
                return
            for child in running:
                if not child.killed and (self._hurried or now >= told_at + child.program.grace_s):
                    self._output.line(child.program.name, "killed" if self._hurried else "did not stop in time: killed")
                    child.kill()
            self._turn(_TURN_S)


def _wake_only(signum: int, frame: FrameType | None) -> None:
    """Do nothing: that there is a handler makes Python write the number to the wake-up descriptor."""
    del signum, frame

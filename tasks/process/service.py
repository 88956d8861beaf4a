"""Running programs under limits.

`ProcessService` owns the programs of its running calls: `close()` stops them. It holds nothing that outlives a call. Of
a worker that is killed the programs run on, and their temporary directories stay.
"""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from config import settings
from gaia.codec import content
from gaia.contracts import process
from gaia.errors import StartFailed
from tasks.process.environment import environment
from tasks.process.executables import Executables
from tasks.process.supervisor import KILL_S, Bounds, Supervisor
from tasks.process.tree import ProcessTable
from tasks.process.waker import Waker
from tasks.roots.roots import Roots
from tasks.scope import Scope

OUTPUT_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""No call may have the worker keep more of stdout or stderr."""


class ProcessService:
    """The operations of the `process` queue."""

    def __init__(self, *, settings: settings.Process, roots: Roots) -> None:
        """Take the settings, and the roots that working directories lie beneath."""
        self._settings = settings
        self._roots = roots
        self._executables = Executables(settings.executables, roots=roots)
        self._table = ProcessTable()
        self._stopping = threading.Event()
        self._idle = threading.Condition()
        self._running: set[Waker] = set()

    def run(self, call: process.Run, scope: Scope) -> process.Exited:
        """Run a program to its end. Its `timeout_s` passing is an answer; the deadline passing is an error.

        A service that is closed starts nothing and answers `worker_stopped`.

        Raises:
            InvalidCall, ExecutableDenied, StartFailed, PathDenied, FileMissing, FileFailed, NotConfigured, Cancelled,
            DeadlineExceeded, TimedOut
        """
        scope.check()
        _check_text(call)
        bounds = self._bounds(call)
        executable = self._executables.admit(call.argv[0])
        with ExitStack() as stack:
            home = stack.enter_context(_fresh_directory(call.argv[0]))
            env = environment(call, self._settings.env_allowed, home)
            cwd = self._working_directory(call, home, stack)
            waker = stack.enter_context(self._registered())
            if self._stopping.is_set():
                return _not_started()
            stack.enter_context(scope.cancelled.calling(waker.wake))
            return Supervisor(
                _start(call, executable, env, cwd),
                stdin=content(call.stdin),
                bounds=bounds,
                scope=scope,
                table=self._table,
                stopping=self._stopping,
                waker=waker,
            ).watch()

    def close(self) -> None:
        """Stop what runs, and wait for it, at most the grace time and a little more."""
        with self._idle:
            self._stopping.set()
            for each in self._running:
                each.wake()
            self._idle.wait_for(lambda: not self._running, self._settings.grace_s + KILL_S)

    @contextmanager
    def _registered(self) -> Iterator[Waker]:
        waker = Waker()
        with self._idle:
            self._running.add(waker)
        try:
            yield waker
        finally:
            with self._idle:
                self._running.remove(waker)
                self._idle.notify_all()
            waker.close()

    def _bounds(self, call: process.Run) -> Bounds:
        output = call.limits.output_bytes or self._settings.output_bytes
        call.require("limits", f"output_bytes must be at most {OUTPUT_LIMIT_BYTES}", holds=output <= OUTPUT_LIMIT_BYTES)
        return Bounds(
            timeout_s=call.timeout_s,
            memory_bytes=call.limits.memory_bytes or self._settings.memory_bytes,
            output_bytes=output,
            grace_s=self._settings.grace_s,
        )

    def _working_directory(self, call: process.Run, home: str, stack: ExitStack) -> str:
        if call.cwd is None:
            return home
        # The child enters the directory that was opened: no name is resolved again.
        return f"/proc/self/fd/{stack.enter_context(self._roots.directory(call.cwd))}"


def _check_text(call: process.Run) -> None:
    """Refuse text that has no bytes: a lone surrogate, which JSON can carry."""
    texts = {"argv": call.argv, "env": (*call.env, *call.env.values())}
    for name, values in texts.items():
        try:
            for each in values:
                os.fsencode(each)
        except UnicodeEncodeError:
            raise call.refuse(name, "holds a character that cannot be encoded") from None


@contextmanager
def _fresh_directory(program: str) -> Iterator[str]:
    """Make an empty directory, removed at the end; what cannot be removed stays.

    Raises:
        StartFailed
    """
    try:
        path = tempfile.mkdtemp(prefix="gaia-run-")
    except OSError as failure:
        raise StartFailed(program, f"no temporary directory: {failure.strerror}") from None
    try:
        yield path
    finally:
        # Not TemporaryDirectory: up to Python 3.11.7 its removal changes modes through links (CVE-2023-6597).
        with suppress(RecursionError):  # a tree about a thousand directories deep
            shutil.rmtree(path, ignore_errors=True)


def _start(call: process.Run, executable: str, env: dict[str, str], cwd: str) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own; no preexec_fn or user, so that Popen can vfork(2).

    Raises:
        StartFailed
    """
    try:
        return subprocess.Popen(  # noqa: S603 - argv without a shell, the executable is on the allow list
            call.argv,
            executable=executable,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE if call.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as failure:
        raise StartFailed(call.argv[0], failure.strerror or type(failure).__name__) from None


def _not_started() -> process.Exited:
    return process.Exited(
        exit_code=None,
        signal=None,
        reason="worker_stopped",
        stdout=b"",
        stderr=b"",
        truncated=False,
        wall_s=0.0,
        cpu_s=0.0,
        peak_memory_bytes=0,
        enforcement="sampled",
    )

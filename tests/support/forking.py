"""Worker processes forked from a server that has imported everything: they start in a fraction of the time.

Each is a process of its own with its own environment, threads and signals. But it ends by `os._exit`: that an
interpreter ends cleanly is seen of those that are executed alone. Like those, they outlive a pytest that is killed.
"""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

IMPORTED = (
    "tasks.api.assembly",
    "tasks.browser.assembly",
    "tasks.cli.main",
    "tasks.cli.worker",
    "tasks.files.assembly",
    "tasks.network.assembly",
    "tasks.process.assembly",
    "tasks.runtime.worker",
    "tests.chaos.workers",
    "tests.support.cluster",
    "tests.support.probe_worker",
)
"""What forked processes need, but for `tasks.app`: it reads the settings when it is imported."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(IMPORTED))


class Forked:
    """A forked process, with the methods of `subprocess.Popen` that tests use."""

    def __init__(
        self, run: Callable[..., Any], arguments: Sequence[Any], environ: Mapping[str, str], log: Path
    ) -> None:
        """Run a function of a module in a process with this environment and no other; it writes to the log."""
        log.touch()
        self._process = _forks.Process(target=_run, args=(run, arguments, dict(environ), log), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Give the exit code, negative for a signal; None while it runs."""
        if self._code is None and self._process.exitcode is not None:
            self._code = self._process.exitcode
            # Now, and not when the garbage collector comes: other tests count the descriptors of this process.
            self._process.close()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; give the exit code.

        Raises:
            TimeoutExpired: if that takes longer.
        """
        if self._code is None:
            self._process.join(timeout)
        found = self.poll()
        if found is None:
            raise subprocess.TimeoutExpired(f"the forked process {self.pid}", timeout or 0.0)
        return found

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and the server has not said so yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def _run(run: Callable[..., Any], arguments: Sequence[Any], environ: Mapping[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(environ)
    run(*arguments)

"""The launcher: started once by a worker, it forks a keeper for each that the worker asks for.

It stays small, so that its forks are cheap, and is the subreaper behind the keepers: should one be killed, what it kept
comes here and is killed. When the worker has gone (the end of the control socket) it sees every keeper out, removes
the control groups and the worker's temporary directory, and ends.

    python -I -S -c '...' FD OPTIONS        OPTIONS: {"enforcement", "cgroup", "pid_namespace", "directory"}

`{"keeper": 1}` with a socket asks for a keeper. What comes first from here is what holds: `{"enforcement": ...,
"pid_namespace": bool}`.
"""

import gc
import json
import os
import resource
import selectors
import signal
import socket
import time
from contextlib import suppress
from typing import Any, Final

from tasks.process.launcher import groups, kernel, messages, tree, trees
from tasks.process.launcher.keeper import Keeper, hear_of_children

FAREWELL_S: Final = 8.0
"""A keeper that has not gone by then, itself bounded by its sweep, is killed."""
LAST_S: Final = 2.0
"""For what was below such a keeper."""
_POLL_S: Final = 0.02


class Launcher:
    """Forks keepers, waits for them, and clears away after them."""

    def __init__(self, control: socket.socket, options: dict[str, Any]) -> None:
        """Find out what the kernel permits."""
        self._control = control
        self._directory: str = options["directory"]
        wanted = options["enforcement"]
        groups.sweep(options["cgroup"])
        self._cgroup = options["cgroup"]
        self._worker = os.getppid()
        name = groups.name_of(self._worker, os.getpid())
        self._site = None if wanted == "sampled" else groups.find(name, wanted, options["cgroup"])
        self._namespace = bool(options["pid_namespace"]) and _permits_namespace()
        self._keepers: dict[int, groups.Group | None] = {}
        self._made = 0
        self._selector = selectors.EpollSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._child_ended = hear_of_children()
        self._selector.register(self._child_ended, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serve the worker until it has gone, then clear away."""
        enforcement = "sampled" if self._site is None else self._site.version
        messages.send(self._control, {"enforcement": enforcement, "pid_namespace": self._namespace})
        try:
            while self._serve_one():
                pass
        finally:
            self._leave()

    def _serve_one(self) -> bool:
        ready = [key.fileobj for key, _ in self._selector.select(3600.0)]
        if self._child_ended in ready:
            with suppress(BlockingIOError):
                os.read(self._child_ended, 4096)
        self._reap()
        return self._control not in ready or self._take_message()

    def _take_message(self) -> bool:
        """Make the keeper that is asked for; say whether the worker is still there."""
        message = messages.receive(self._control)
        if not message.body:
            return False
        if message.fds:
            # Where no process or group can be made now, one call fails, by the end of its channel, and no other.
            with socket.socket(fileno=message.fds[0]) as channel, suppress(OSError):
                self._fork(channel)
        return True

    def _fork(self, channel: socket.socket) -> None:
        group, pid = self._group(), b""
        try:
            told, tell = os.pipe()
            with os.fdopen(told, "rb") as pipe:
                try:
                    child = os.fork()
                    if child == 0:
                        self._fork_keeper(channel, group, told, tell)
                finally:
                    os.close(tell)
                pid = pipe.read()
            if self._namespace:
                os.waitpid(child, 0)
        finally:
            if pid:
                self._keepers[int(pid)] = group
            elif group is not None:
                group.remove()

    def _group(self) -> groups.Group | None:
        if self._site is None:
            return None
        self._made += 1
        return self._site.group(self._made)

    def _fork_keeper(self, channel: socket.socket, group: groups.Group | None, told: int, tell: int) -> None:
        """Become a keeper or, for a namespace, the short-lived parent of one; never return."""
        try:
            self._selector.close()
            self._control.close()
            for fd in (told, self._child_ended, signal.set_wakeup_fd(-1)):
                os.close(fd)
            if self._namespace:
                kernel.part_children()
                pid = os.fork()
                if pid:
                    os.write(tell, str(pid).encode())
                    os._exit(0)
                kernel.mount_proc()
            else:
                os.write(tell, str(os.getpid()).encode())
            os.close(tell)
            kernel.adopt_orphans()
            if group is not None:
                group.join()
            messages.send(channel, {"ready": 1})
            Keeper(channel, group, first=self._namespace).serve()
        finally:
            os._exit(1)

    def _reap(self) -> None:
        """Wait for keepers that have ended, and kill whatever is below this process and no keeper's any more."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                break
            if os.WIFSTOPPED(status):
                os.kill(pid, signal.SIGKILL)  # a keeper that was stopped, by its program perhaps, holds nothing
                continue
            group = self._keepers.pop(pid, None)
            if group is not None:
                group.remove()
        if not self._namespace:
            self._kill_orphans()

    def _kill_orphans(self) -> None:
        own = os.getpid()
        for pid in tree.children(own):
            if pid not in self._keepers:
                tree.kill_below(pid)
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _leave(self) -> None:
        end = time.monotonic() + FAREWELL_S
        while self._keepers and time.monotonic() < end:
            self._reap()
            time.sleep(_POLL_S)
        for pid in self._keepers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + LAST_S
        while (self._keepers or tree.children(os.getpid())) and time.monotonic() < end:
            self._reap()
            time.sleep(_POLL_S)
        if self._site is not None:
            self._site.remove()
            groups.sweep(self._cgroup, also_of=self._worker)
        trees.remove(self._directory)


def _permits_namespace() -> bool:
    """Try to be the first process of a PID namespace that sees itself in /proc."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kernel.part_children()
            pid = os.fork()
            if pid == 0:
                kernel.mount_proc()
                os._exit(0 if os.getpid() == 1 and tree.stat(1) is not None else 1)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except OSError:
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main(fd: int, options: str) -> None:
    """Serve the worker at the other end of the descriptor."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker alone says when it is over
    kernel.adopt_orphans()
    kernel.gain_no_privileges()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.disable()
    launcher = Launcher(socket.socket(fileno=fd), json.loads(options))
    # What is there already is never looked at by a collection, so never copied for it in a fork.
    gc.freeze()
    launcher.serve()

"""A keeper: the process that starts one program at a time, and outlives it long enough to leave nothing of it.

Every descendant of the program is the keeper's: as the first process of a PID namespace or, where there is none, as a
child subreaper (prctl(2)). So its death (the namespace goes with it), the worker's death (the end of its channel) and
the end of the program all end the tree. It holds the limits, too: those of time and, without a control group, all.

One program: `{"argv": ...}` comes with four descriptors; `{"started": pid}` goes back with a pidfd, or
`{"failed": reason}`. Then `{"stop": cause, "grace_s": s}` and `{"signal": number, "tree": bool}` may come, and
`{"ended": ...}` goes back when no process is left.
"""

import os
import selectors
import signal
import socket
import time
from contextlib import suppress
from typing import Any, Final, NoReturn

from tasks.process.launcher import messages, tree
from tasks.process.launcher.groups import Group, Usage
from tasks.process.launcher.spawn import spawn
from tasks.process.launcher.throttle import Throttle

LOOK_S: Final = 0.05
"""Between two looks at a tree that does something, without a group."""
GROUP_LOOK_S: Final = 0.1
"""With a group: the kernel holds the limits, a look only finds out that it had to."""
IDLE_LOOK_S: Final = 1.5
IDLE_GROUP_LOOK_S: Final = 2.0
"""Looks become this rare while a tree does nothing."""

OWN_S: Final = 0.002
OWN_BYTES: Final = 65_536
"""What a keeper itself takes between two looks at most."""

STEP_BYTES: Final = 1 << 20
"""A program in a group may have up to so much more than its limit."""

SWEEP_S: Final = 5.0
"""How long killed processes may take to die."""
_SWEEP_PAUSE_S: Final = 0.002
_ORDINARY_PASSES: Final = 3
"""What outlives these forks as fast as it is killed: one core is then the keeper's alone, where that is permitted."""


class Keeper:
    """Serves one channel until its other end goes."""

    def __init__(self, channel: socket.socket, group: Group | None, *, first: bool) -> None:
        """Take the channel; `first` says that this is the first process of a PID namespace."""
        self._channel = channel
        self._group = group
        self._first = first
        self.rests_at = None if group is None else group.usage()
        self._watched: int | None = None
        self.status: int | None = None
        self.ended_at = 0.0
        self._selector = selectors.EpollSelector()
        self._child_ended = hear_of_children()

    def serve(self) -> NoReturn:
        """Run programs; leave when the worker has gone or this keeper cannot be used again."""
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._selector.register(self._child_ended, selectors.EVENT_READ)
        code = 0
        try:
            while (message := self._next()) is not None:
                if "argv" in message.body and not self._serve_one(message):
                    break
        except (OSError, ValueError):
            code = 1
        finally:
            self.sweep()
            os._exit(code)

    def sweep(self) -> bool:
        """Kill and wait for every process below, at most `SWEEP_S`; say whether none is left."""
        end = time.monotonic() + SWEEP_S
        passes = 0
        try:
            while self.reap():
                if time.monotonic() > end:
                    return False
                if passes == _ORDINARY_PASSES:
                    _take_precedence()
                self._kill()
                passes += 1
                if not self.reap():
                    break
                self.wait(_SWEEP_PAUSE_S)
        finally:
            if passes > _ORDINARY_PASSES:
                _take_turns()
        return True

    def signal_tree(self, number: int) -> None:
        """Send a signal to everything below."""
        if self._first:
            with suppress(ProcessLookupError):
                os.kill(-1, number)  # kill(2): all but this process
            return
        for pid in tree.descendants(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def wait(self, timeout_s: float) -> list[Any]:
        """Wait for a message or the end of a child; give what is readable."""
        ready = [key.fileobj for key, _ in self._selector.select(max(0.0, timeout_s))]
        if self._child_ended in ready:
            with suppress(BlockingIOError):
                os.read(self._child_ended, 4096)
        return ready

    def watch_for(self, pid: int) -> None:
        """Keep the status of that child when it is waited for."""
        self._watched, self.status = pid, None

    def reap(self) -> bool:
        """Wait for what has ended; say whether there is a child still."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._watched:
                self._watched, self.status, self.ended_at = None, status, time.monotonic()

    def _next(self) -> messages.Message | None:
        """Wait for the next message, and bury orphans meanwhile; None if the worker has gone."""
        while self._channel not in self.wait(3600.0):
            self.reap()
        message = messages.receive(self._channel)
        return message if message.body else None

    def _serve_one(self, message: messages.Message) -> bool:
        """Run a program; say whether another may follow."""
        run = _Run(self, self._channel, self._group, message.body)
        if not run.start(message.fds):
            return not run.spends_keeper
        run.watch()
        clean = self.sweep()
        run.settle()
        again = clean and not run.spends_keeper and (self._group is None or self._group.reset())
        run.report(clean=clean, again=again)
        if again and self._group is not None:
            self.rests_at = self._group.usage()
        return again

    def _kill(self) -> None:
        if self._first:
            self.signal_tree(signal.SIGKILL)
            return
        if self._group is not None:
            with suppress(OSError):
                self._group.forbid_forks()
                for pid in self._group.members():
                    if pid != os.getpid():
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
        tree.kill_below(os.getpid())


class _Run:
    """One program from its start to the report of its end."""

    def __init__(self, keeper: Keeper, channel: socket.socket, group: Group | None, request: dict[str, Any]) -> None:
        self._keeper = keeper
        self._channel = channel
        self._group = group
        self._request = request
        self._pid = 0
        self._cause: str | None = None
        self._kill_at: float | None = None
        self._look_s = self._look_least_s = LOOK_S if group is None else GROUP_LOOK_S
        self._cpu_s = self._peak_bytes = 0.0
        self._known: dict[int, int] = {}
        self.worker_gone = False

    def start(self, fds: tuple[int, ...]) -> bool:
        """Start the program, and tell the worker how that went."""
        limits = self._request
        self._children_s = _children_s()
        self._before: Usage | None = self._keeper.rests_at
        try:
            if self._group is not None and self._before is not None:
                self._group.limit(
                    # On top of the keeper's own, in steps: what stays the same need not be written.
                    memory_bytes=limits["memory_bytes"] + -(-self._before.memory_bytes // STEP_BYTES) * STEP_BYTES,
                    cpu_share=limits["cpu_share"],
                    processes=limits["processes"],
                )
            self._started_at = time.monotonic()
            self._pid = spawn(limits, fds, sampled=self._group is None)
        except OSError as failure:
            messages.send(self._channel, {"failed": failure.strerror or type(failure).__name__})
            return False
        finally:
            for fd in fds:
                os.close(fd)
        self._keeper.watch_for(self._pid)
        pidfd = os.pidfd_open(self._pid)
        try:
            messages.send(self._channel, {"started": self._pid}, (pidfd,))
        finally:
            os.close(pidfd)
        self._timeout_at = self._started_at + limits["timeout_s"]
        self._throttle = Throttle(None if self._group else limits["cpu_share"], self._started_at)
        self._next_look = self._started_at
        return True

    def watch(self) -> None:
        """Wait until the program and, within its grace, its tree have ended or have to be killed."""
        while not self._over():
            left = self._keeper.reap()
            if not left:
                break
            now = time.monotonic()
            if self._throttle.resume_at is not None and now >= self._throttle.resume_at:
                self._throttle.resume()
            if now >= self._next_look:
                self._look(now)
            if self._cause is None and now >= self._timeout_at:
                self._stop("timeout", self._request["grace_s"])
            if self._over():
                break
            if self._channel in self._keeper.wait(self._due() - time.monotonic()):
                self._hear()
        self._throttle.resume()

    @property
    def spends_keeper(self) -> bool:
        """Say whether the keeper is of no use to another program."""
        return self.worker_gone or not self._request["network"]

    def settle(self) -> None:
        """Take the last word on what it used, also whether the kernel killed it for want of memory."""
        with suppress(OSError):
            if self._account_group() == "memory" and self._cause is None:
                self._cause = "memory"

    def report(self, *, clean: bool, again: bool) -> None:
        """Tell the worker how it ended."""
        used_s = _children_s() - self._children_s
        body = {
            "ended": self._keeper.status,
            "cause": self._cause,
            "wall_s": max(0.0, self._keeper.ended_at - self._started_at),
            "cpu_s": max(used_s, self._cpu_s),
            "peak_bytes": int(self._peak_bytes),
            "clean": clean,
            "again": again,
        }
        with suppress(OSError):  # the worker has gone
            messages.send(self._channel, body)

    def _over(self) -> bool:
        if self.worker_gone:
            return True
        if self._kill_at is None:
            return self._keeper.status is not None
        # The grace is for the whole tree, also when its first process has ended.
        return time.monotonic() >= self._kill_at

    def _due(self) -> float:
        times = [self._next_look, self._timeout_at if self._cause is None else self._kill_at or 0.0]
        if self._throttle.resume_at is not None:
            times.append(self._throttle.resume_at)
        return min(times)

    def _hear(self) -> None:
        """Take what the worker says."""
        message = messages.receive(self._channel)
        if not message.body:
            self.worker_gone = True
        elif "stop" in message.body:
            self._stop(message.body["stop"], message.body["grace_s"])
        elif message.body.get("tree"):
            self._keeper.signal_tree(message.body["signal"])
        elif "signal" in message.body and self._keeper.status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, message.body["signal"])

    def _stop(self, cause: str, grace_s: float) -> None:
        """Ask the tree to end, and see to it when the grace is over; a shorter grace shortens one that runs."""
        end = time.monotonic() + grace_s
        if self._cause is None:
            self._cause = cause
            if grace_s > 0:
                self._throttle.resume()
                self._keeper.signal_tree(signal.SIGTERM)
                # What is stopped takes the signal when it goes on, kill(2).
                self._keeper.signal_tree(signal.SIGCONT)
        self._kill_at = end if self._kill_at is None else min(self._kill_at, end)

    def _look(self, now: float) -> None:
        cpu_s, peak_bytes = self._cpu_s, self._peak_bytes
        found = self._account_sample(now) if self._group is None else self._account_group()
        limits = self._request
        if limits["cpu_s"] is not None and self._cpu_s > limits["cpu_s"]:
            self._stop("cpu", limits["grace_s"])
        if found:
            self._stop(found, 0.0)
        # A group's time holds this process's own, too.
        idle = self._cpu_s - cpu_s < OWN_S and self._peak_bytes <= peak_bytes + OWN_BYTES
        most = IDLE_LOOK_S if self._group is None else IDLE_GROUP_LOOK_S
        self._look_s = min(most, 2 * self._look_s) if idle else self._look_least_s
        self._next_look = now + self._look_s

    def _account_sample(self, now: float) -> str | None:
        found = tree.sample(os.getpid())
        # A child just made by vfork(2) shows its parent's memory as its own: it counts from its second look on.
        counted = [each for each in found.members if each.pid == self._pid or self._known.get(each.pid) == each.start]
        self._known = {each.pid: each.start for each in found.members}
        memory_bytes = sum(each.memory_bytes for each in counted)
        self._cpu_s = max(self._cpu_s, found.cpu_s)
        self._peak_bytes = max(self._peak_bytes, memory_bytes)
        self._throttle.account(found, now)
        if memory_bytes > self._request["memory_bytes"]:
            return "memory"
        processes = self._request["processes"]
        return "processes" if processes is not None and len(found.members) > processes else None

    def _account_group(self) -> str | None:
        if self._group is None or self._before is None:
            return None
        found = self._group.usage()
        self._cpu_s = found.cpu_s - self._before.cpu_s
        self._peak_bytes = max(self._peak_bytes, found.peak_bytes - self._before.memory_bytes)
        return "memory" if found.kills > self._before.kills else None


def _take_precedence() -> None:
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _take_turns() -> None:
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def hear_of_children() -> int:
    """Give a descriptor that becomes readable when a child ends."""
    ours, handlers = os.pipe()
    for fd in (ours, handlers):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(handlers, warn_on_full_buffer=False)
    return ours

"""The worker's side of its launcher: keepers made ahead, lent to a program each, and taken back.

A launcher that was killed is replaced; the keepers it had made go on, for each has its own channel to the worker.
"""

import errno
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from gaia.contracts import process
from gaia.errors import InvalidSetting, StartFailed
from tasks.process.launcher import messages, tree, trees

START_S: Final = 20.0
"""For a launcher to say what holds, and for a keeper to be there; on an idle machine 0.05 s and 0.02 s."""
SPARE: Final = 4
"""Keepers made ahead of those that are needed."""
IDLE: Final = 200
"""Keepers that are kept for later, about two megabytes each; the one that rested longest makes room."""
RESTED_S: Final = 10.0
"""What has rested so long is let go, so that a crowd leaves no crowd behind."""
PREFIX: Final = "gaia-process-"
_LOCK: Final = "lock"
_MAIN: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from tasks.process.launcher.main import main; main(int(sys.argv[2]), sys.argv[3])"
)
_ROOT: Final = str(Path(__file__).resolve().parents[2])

Shape = tuple[int | None, ...]


class Holding(NamedTuple):
    """How limits are held by a launcher's keepers."""

    enforcement: process.Enforcement
    pid_namespace: bool


class Keeper:
    """A channel to a keeper. `shape` is what its first program fixed."""

    def __init__(self, channel: socket.socket) -> None:
        """Take the channel. It never blocks: a keeper that was stopped must not hold a thread of the worker."""
        channel.settimeout(0)
        self.channel = channel
        self.shape: Shape | None = None
        self.rests_since = time.monotonic()

    def close(self) -> None:
        """Let it go: it kills what it holds, and ends."""
        self.channel.close()


class Keepers:
    """The pool. Thread-safe."""

    def __init__(self, *, enforcement: str, cgroup: str | None, pid_namespace: bool) -> None:
        """Start nothing yet."""
        self._options = {"enforcement": enforcement, "cgroup": cgroup, "pid_namespace": pid_namespace}
        self._lock = threading.Lock()
        self._launcher: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._directory: Path | None = None
        self._owner: int | None = None
        self._holding: Holding | None = None
        self._idle: list[Keeper] = []
        self._closed = False
        self.made = 0

    @property
    def idle(self) -> int:
        """Count the keepers that wait for a program."""
        return len(self._idle)

    @property
    def held_bytes(self) -> int:
        """Sum the memory of every program's tree now, keepers excluded; a look at each process."""
        launcher = self._launcher
        if launcher is None:
            return 0
        found = tree.sample(launcher.pid).members
        return sum(each.memory_bytes for each in found if each.parent != launcher.pid)

    def holding(self) -> Holding:
        """Say how limits are held; start the launcher if there is none.

        Raises:
            StartFailed, InvalidSetting
        """
        with self._lock:
            return self._ready()

    def directory(self) -> Path:
        """Give the worker's temporary directory; whoever sees the worker out removes it.

        Raises:
            StartFailed, InvalidSetting
        """
        with self._lock:
            self._ready()
            return self._directory or Path(tempfile.gettempdir())

    def take(self, shape: Shape) -> Keeper:
        """Lend a keeper for a program of that shape.

        Raises:
            StartFailed, InvalidSetting
        """
        with self._lock:
            self._ready()
            self._let_go_on()
            # The one that rested longest: what the last program used of its CPU share, the next one lacks.
            found = next((each for each in self._idle if each.shape == shape), None)
            found = found or next((each for each in self._idle if each.shape is None), None)
            if found is None:
                found = self._make()
            else:
                self._idle.remove(found)
            while len(self._idle) < SPARE:
                self._idle.append(self._make())
        found.shape = shape
        return found

    def give_back(self, keeper: Keeper) -> None:
        """Take back a keeper that may hold another program."""
        with self._lock:
            if self._closed:
                keeper.close()
                return
            keeper.rests_since = time.monotonic()
            self._idle.append(keeper)
            # Or keepers of shapes that nobody asks for any more would fill the pool.
            while len(self._idle) > IDLE or self._has_one_too_many(keeper.rests_since):
                self._idle.pop(0).close()

    def close(self) -> None:
        """Let all go, and wait for the launcher to clear away; keepers that are lent end with their own channels."""
        with self._lock:
            self._closed = True
            for each in self._idle:
                each.close()
            self._idle.clear()
            self._end_launcher()
            if self._directory is not None:
                trees.remove(str(self._directory))
            if self._owner is not None:
                os.close(self._owner)
            self._directory = self._owner = None

    def _has_one_too_many(self, now: float) -> bool:
        return len(self._idle) > 2 * SPARE and self._idle[0].rests_since + RESTED_S < now

    def _ready(self) -> Holding:
        if self._holding is None or self._launcher is None or self._launcher.poll() is not None:
            if self._closed:
                raise StartFailed("the launcher", "the worker is stopping")
            self._end_launcher()
            self._holding = self._start()
        return self._holding

    def _start(self) -> Holding:
        try:
            if self._directory is None:
                sweep_directories()
                self._directory, self._owner = own_directory()
            ours, theirs = messages.pair()
        except OSError as failure:
            raise StartFailed("the launcher", f"no temporary directory: {failure.strerror}") from None
        options = json.dumps({**self._options, "directory": str(self._directory)})
        with theirs:
            argv = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _MAIN, _ROOT, str(theirs.fileno()), options]
            self._launcher = subprocess.Popen(  # noqa: S603 - our own module
                argv,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={},
                start_new_session=True,
            )
        self._control = ours
        ours.settimeout(START_S)
        hello = _hello(ours)
        if "enforcement" not in hello:
            raise StartFailed("the launcher", "it said nothing")
        wanted = self._options["enforcement"]
        if wanted not in ("auto", hello["enforcement"]):
            raise InvalidSetting("GAIA_PROCESS__ENFORCEMENT", f"is {wanted}, which this machine does not permit")
        return Holding(hello["enforcement"], hello["pid_namespace"])

    def _make(self) -> Keeper:
        ours, theirs = messages.pair()
        try:
            with theirs:
                if self._control is None:
                    raise StartFailed("the launcher", "there is none")
                messages.send(self._control, {"keeper": 1}, [theirs.fileno()])
        except OSError as failure:
            ours.close()
            raise StartFailed("the launcher", failure.strerror or "it has gone") from None
        self.made += 1
        return Keeper(ours)

    def _let_go_on(self) -> None:
        """Continue a launcher that was stopped: where programs see it they can do that, as they can kill it."""
        if self._launcher is not None:
            self._launcher.send_signal(signal.SIGCONT)

    def _end_launcher(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._launcher is not None:
            self._let_go_on()
            try:
                self._launcher.wait(START_S)
            except subprocess.TimeoutExpired:
                self._launcher.kill()
                self._launcher.wait()
        self._control = self._launcher = self._holding = None


def answer(keeper: Keeper, within_s: float) -> messages.Message:
    """Wait for what a keeper says of a start; an empty message if it has gone, or says nothing in time."""
    end = time.monotonic() + within_s
    poll = select.poll()
    poll.register(keeper.channel, select.POLLIN)
    while (left_s := end - time.monotonic()) > 0:
        if not poll.poll(left_s * 1000):
            break
        with suppress(OSError):
            message = messages.receive(keeper.channel)
            if "ready" not in message.body:
                return message
    return messages.Message({})


def _hello(channel: socket.socket) -> dict[str, Any]:
    """Take a launcher's first word; empty if it has gone, or says nothing within the channel's time-out."""
    try:
        return messages.receive(channel).body
    except OSError:
        return {}


def own_directory() -> tuple[Path, int]:
    """Make a temporary directory, and lock it; give it and the descriptor that holds the lock.

    Between the two another worker's sweep may take it for one that was left, and remove it: then there is a next one.

    Raises:
        OSError
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        owner = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(owner), os.lstat(path / _LOCK)):
                return path, owner
        os.close(owner)


def sweep_directories() -> int:
    """Remove the directories of workers that have gone without: their locks are free. Give how many."""
    removed = 0
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{_LOCK}"):
        with suppress(OSError), _opened_lock(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            trees.remove(str(lock.parent))
            removed += 1
    return removed


def _opened_lock(path: Path) -> IO[bytes]:
    """Open a lock of this user's own: anybody may put a link, or a FIFO that nobody writes to, in a shared directory.

    Raises:
        OSError
    """
    if path.parent.lstat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")

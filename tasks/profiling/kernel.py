"""What the kernel tells of the threads of this process: time on a CPU, time ready for one, and the call they are in.

proc_pid_schedstat(5), proc_pid_syscall(5). The files stay open and are read without letting go of the interpreter, so
that all threads are seen at one moment and a look costs microseconds.
"""

import ctypes
import os
import platform
from typing import Final, NamedTuple

_TASKS: Final = "/proc/self/task"
_READ_BYTES: Final = 512

_LIBC: Final = ctypes.PyDLL(None)
_LIBC.pread.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long)
_LIBC.pread.restype = ctypes.c_ssize_t

_NUMBERS: Final[dict[str, dict[str, tuple[int, ...]]]] = {
    # epoll_wait, epoll_pwait, epoll_pwait2, poll, ppoll, select, pselect6; nanosleep, clock_nanosleep
    "x86_64": {"futex": (202,), "poll": (232, 281, 441, 7, 271, 23, 270), "sleep": (35, 230)},
    "aarch64": {"futex": (98,), "poll": (22, 441, 73, 72), "sleep": (101, 115)},
}
_KINDS: Final = {number: kind for kind, numbers in _NUMBERS.get(platform.machine(), {}).items() for number in numbers}


class Account(NamedTuple):
    """How long a thread ran, and how long it was ready and had no CPU, since it began."""

    ran_ns: int
    ready_ns: int


class Call(NamedTuple):
    """The system call that a thread is blocked in: its kind, if it is one of those above, and its first argument."""

    kind: str | None
    argument: int
    is_futex: bool


class Task:
    """One thread. Not thread-safe."""

    CONDITION_BYTES: Final = 48
    """A condition of pthreads: who waits for it does so at an address within."""

    def __init__(self, task_id: int) -> None:
        """Open its files.

        Raises:
            OSError: if there is no such thread, or the kernel does not tell.
        """
        self.id: Final = task_id
        self._buffer = ctypes.create_string_buffer(_READ_BYTES)
        self._files: dict[str, int] = {}
        try:
            for name in ("schedstat", "syscall", "stat"):
                self._files[name] = os.open(f"{_TASKS}/{task_id}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def account(self) -> Account:
        """Read the account.

        Raises:
            OSError: if the thread has ended.
        """
        ran, ready, _ = self._read("schedstat").split()
        return Account(int(ran), int(ready))

    def call(self) -> Call | None:
        """Give the call that it is blocked in; None while it runs or could."""
        words = self._read("syscall").split()
        if len(words) < 2 or words[0] in {b"running", b"-1"}:  # noqa: PLR2004 - a number and an argument
            return None
        kind = _KINDS.get(int(words[0]))
        return Call(None if kind == "futex" else kind, int(words[1], 16), kind == "futex")

    def is_uninterruptible(self) -> bool:
        """Say whether it waits in a way that no signal ends, as for a disk."""
        return self._read("stat").rpartition(b") ")[2][:1] == b"D"

    def name(self) -> str:
        """Give the name that the kernel has for it, which may be cut off."""
        return self._read("stat").partition(b"(")[2].rpartition(b")")[0].decode("utf-8", "replace")

    def _read(self, name: str) -> bytes:
        size = _LIBC.pread(self._files[name], self._buffer, _READ_BYTES, 0)
        if size <= 0:
            raise ProcessLookupError(f"{name} of thread {self.id} cannot be read")
        return self._buffer.raw[:size]


def own_tasks() -> set[int]:
    """Give the threads of this process, those of C code too."""
    return {int(each.name) for each in os.scandir(_TASKS)}

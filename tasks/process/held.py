"""The started programs of one worker: those that run, and for a while those that have ended."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from gaia.contracts import process
from gaia.errors import ProcessMissing
from tasks.process.launcher import tree
from tasks.process.program import Program
from tasks.process.registry import Record

REMEMBERED: Final = 1000
"""Programs that have ended and can still be asked for."""
REMEMBERED_BYTES: Final = 256 * 1024 * 1024
"""What the last output of those may take; the latest is remembered in any case."""
_WAITS: Final = 1000


@dataclass
class Held:
    """A started program and what the worker knows of it.

    `keeper_pid` is the process below which its tree is, None if it ended before anybody looked. `waits` is when each
    waiting call gives up, by its id.
    """

    program: Program
    record: Record
    keeper_pid: int | None = None
    ended_at: float | None = None
    waits: dict[str, float] = field(default_factory=dict)

    def until(self, call_id: str, timeout_s: float, now: float) -> float:
        """Give when a call that comes again and again gives up: its time runs from its first look."""
        if len(self.waits) >= _WAITS:
            self.waits = {name: end for name, end in self.waits.items() if end > now}
        return self.waits.setdefault(call_id, now + timeout_s)

    def looked(self, call_id: str) -> bool:
        """Say whether a waiting call was here before."""
        return call_id in self.waits

    @property
    def kept_bytes(self) -> int:
        """Count the output that is kept of a program that has ended."""
        exited = self.program.exited
        return 0 if exited is None else len(exited.stdout) + len(exited.stderr)

    def state(self) -> process.State:
        """Describe it as it is now."""
        program, record = self.program, self.record
        exited = program.exited
        gone = exited is not None or self.keeper_pid is None
        found = tree.Sample((), 0.0) if gone else tree.sample(self.keeper_pid or 0)
        return process.State(
            id=record.id,
            worker=record.worker,
            pid=program.pid,
            program=record.program,
            profile=record.profile,
            running=exited is None,
            age_s=time.monotonic() - program.started_at,
            memory_bytes=sum(each.memory_bytes for each in found.members),
            cpu_s=found.cpu_s if exited is None else exited.cpu_s,
            processes=len(found.members),
            stdout_bytes=program.captures["stdout"].total_bytes,
            stderr_bytes=program.captures["stderr"].total_bytes,
            exited=exited,
        )


class HeldPrograms:
    """Thread-safe."""

    def __init__(self, remember_s: float) -> None:
        """Start empty."""
        self._remember_s = remember_s
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Held] = OrderedDict()

    def add(self, held: Held) -> None:
        """Take a program in."""
        with self._lock:
            self._held[held.record.id] = held
        self.forget_old(time.monotonic())

    def get(self, program_id: str) -> Held:
        """Give a program.

        Raises:
            ProcessMissing
        """
        self.forget_old(time.monotonic())
        with self._lock:
            found = self._held.get(program_id)
        if found is None:
            raise ProcessMissing(program_id)
        return found

    def all(self) -> list[Held]:
        """Give all, the oldest first."""
        with self._lock:
            return list(self._held.values())

    def forget(self, program_id: str | None = None) -> int:
        """Forget one program, or all, that have ended; give how many."""
        with self._lock:
            gone = [name for name, each in self._held.items() if each.program.ended and program_id in (None, name)]
            for name in gone:
                del self._held[name]
        return len(gone)

    def forget_old(self, now: float) -> None:
        """Forget what ended too long ago, and the first to end where there are too many."""
        with self._lock:
            ended = sorted((each.ended_at, name) for name, each in self._held.items() if each.ended_at is not None)
            size_bytes = 0
            for number, (at, name) in enumerate(reversed(ended)):
                size_bytes += self._held[name].kept_bytes
                much = number >= REMEMBERED or (number > 0 and size_bytes > REMEMBERED_BYTES)
                if much or at + self._remember_s < now:
                    del self._held[name]

"""What threads do to one program at its end."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tasks.process.bounds import Bounds
from tasks.process.keepers import Keeper
from tasks.process.launcher import messages
from tasks.process.loop import Loop, LoopThread
from tasks.process.program import Pipes, Program
from tests.support.waiting import until

BOUNDS = Bounds(
    timeout_s=60.0,
    memory_bytes=1 << 20,
    output_bytes=100,
    cpu_percent=None,
    cpu_s=None,
    processes=None,
    open_files=None,
    file_bytes=None,
    network=True,
    grace_s=0.0,
)


class Parts:
    """A program whose keeper, and whose other end of the pipes, the test holds."""

    def __init__(self) -> None:
        self.loop = Loop()
        ours, self.keeper = messages.pair()
        self.keeper.settimeout(0)
        (stdout, self.stdout), (stderr, self.stderr) = os.pipe(), os.pipe()
        for fd in (stdout, stderr):
            os.set_blocking(fd, False)
        self.channel = Keeper(ours)
        self.program = Program(
            keeper=self.channel,
            pidfd=os.pidfd_open(os.getpid()),
            pipes=Pipes(None, stdout, stderr),
            loop=self.loop,
            bounds=BOUNDS,
            enforcement="sampled",
            stdin=b"",
            tail=True,
        )
        self.program.attach()

    def close(self) -> None:
        if not self.program.ended:
            self.program.abandon()
        self.channel.close()
        self.keeper.close()
        for fd in (self.stdout, self.stderr):
            os.close(fd)
        self.loop.close()


@pytest.fixture
def parts() -> Iterator[Parts]:
    found = Parts()
    yield found
    found.close()


def test_nothing_is_said_to_the_keeper_of_a_program_that_has_ended(parts: Parts) -> None:
    messages.send(parts.keeper, {"ended": 0, "cause": None, "clean": True, "again": True})
    assert parts.loop.until(lambda: parts.program.ended, time.monotonic() + 20)
    parts.program.stop("cancelled", 0.0)
    parts.program.signal(9, whole=True)
    with pytest.raises(BlockingIOError):
        messages.receive(parts.keeper)


def test_a_pipe_that_others_still_write_to_does_not_hold_the_end(parts: Parts) -> None:
    """Its writing end went to a process that is not below the keeper."""
    os.set_blocking(parts.stdout, False)
    reading = os.read
    calls = 0

    def filled(fd: int, size: int) -> bytes:
        nonlocal calls
        calls += 1
        assert calls < 100
        fill(parts.stdout)
        return reading(fd, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.process.program.os.read", filled)
        messages.send(parts.keeper, {"ended": 0, "cause": None, "clean": True, "again": True})
        assert parts.loop.until(lambda: parts.program.ended, time.monotonic() + 20)
    assert parts.program.exited is not None
    assert parts.program.exited.truncated


def fill(fd: int) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(fd, bytes(1 << 16))


def test_what_fails_about_one_program_does_not_end_the_thread_of_all(caplog: pytest.LogCaptureFixture) -> None:
    thread = LoopThread("tests-loop")
    ready, tell = os.pipe()
    seen: list[int] = []

    def fail() -> None:
        seen.append(len(os.read(ready, 1)))
        raise ZeroDivisionError

    try:
        thread.loop.add(ready, 1, fail)
        for count in (1, 2):
            os.write(tell, b"x")
            until(lambda count=count: len(seen) == count)
    finally:
        thread.loop.remove(ready)
        thread.close()
        os.close(ready)
        os.close(tell)
    assert "ZeroDivisionError" in caplog.text

"""Operations of a queue `probe` that exist only in tests: they show what wiring does around a service.

celery -A tests.support.probe_app worker -Q probe
"""

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

from billiard.einfo import ExceptionInfo
from kombu.asynchronous import get_event_loop

from gaia import codec
from gaia.contracts.base import Call, Result, RetryPolicy, contract, secret
from gaia.errors import ConnectFailed, TimedOut
from tasks.broker.channel import Fetching
from tasks.runtime import identity
from tasks.runtime.services import once
from tasks.scope import Later, Scope
from tasks.wiring import handles


@contract
class Seen(Result):
    """What a probe saw."""

    text: str
    attempts: int = 1
    body: bytes = secret("body", default=b"")


@contract
class Echo(Call[Seen], operation="probe.echo"):
    """Give the text back."""

    text: str
    body: bytes = secret("body", default=b"")
    token: str = secret("all", default="")


@contract
class Nothing(Call[Seen], operation="probe.nothing_at_all"):
    """Do nothing: what is left is what stands around a call."""


@contract
class Fail(Call[Seen], operation="probe.fail"):
    """Fail with a foreign error that holds the secret."""

    token: str = secret("all", default="")


@contract
class Leave(Call[Seen], operation="probe.leave"):
    """Ask the process to exit."""


@contract
class Flaky(Call[Seen], operation="probe.flaky"):
    """Fail with a transient error until that attempt."""

    RETRY = RetryPolicy(attempts=3, base_s=0.01)

    succeed_at: int = 2


@contract
class Hold(Call[Seen], operation="probe.hold"):
    """Say that it runs, and go on until a file appears, the call is cancelled, or its deadline passes."""

    started: str
    release: str


@contract
class Seize(Call[Seen], operation="probe.seize"):
    """Hold the interpreter in C code, again and again, as long as `Hold`."""

    started: str
    release: str


@contract
class Contend(Call[Seen], operation="probe.contend"):
    """Take a lock that all calls share, and hold it as long as `Hold`."""

    started: str
    release: str


@contract
class Clog(Call[Seen], operation="probe.clog"):
    """Keep the worker's loop from turning, as long as `Hold`."""

    started: str
    release: str


@contract
class Append(Call[Seen], operation="probe.append"):
    """Add a word to a file."""

    path: str
    word: str


@contract
class Snooze(Call[Seen], operation="probe.snooze"):
    """Ask to come back that many times."""

    marks: str
    times: int
    pause_s: float = 0.05


@contract
class Sleepy(Call[Seen], operation="probe.sleepy"):
    """Go on until a file appears, whoever cancels it, then ask to come back."""

    started: str
    release: str
    pause_s: float


@contract
class Die(Call[Seen], operation="probe.die"):
    """Kill the worker, once: the second run succeeds."""

    marker: str


@contract
class Quit(Call[Seen], operation="probe.quit"):
    """Raise what is no `Exception`, as a panic of a library in Rust is none."""


@contract
class Rest(Call[Seen], operation="probe.rest"):
    """Take so long."""

    duration_s: float


@contract
class Burn(Call[Seen], operation="probe.burn"):
    """Use so much CPU time, in Python."""

    cpu_s: float


@contract
class Poison(Call[Seen], operation="probe.poison"):
    """Kill the worker, every time."""


@contract
class HoldThing(Call[Seen], operation="probe.hold_thing"):
    """Make a thing that lives on the worker; its id is the text."""


@contract
class AskThing(Call[Seen], operation="probe.ask_thing"):
    """Name the process that holds a thing; go on for as long as `Hold`, if there are files."""

    HOLDER = "thing"

    thing: str
    started: str = ""
    release: str = ""


@contract
class DropThing(Call[Seen], operation="probe.drop_thing"):
    """End a thing."""

    HOLDER = "thing"

    thing: str


@contract
class Grow(Call[Seen], operation="probe.grow"):
    """Keep so much memory for good; the text is the pid."""

    size_bytes: int


@contract
class CountErrors(Call[Seen], operation="probe.count_errors"):
    """Count the errors of ended calls that are still in memory."""


@contract
class Stick(Call[Seen], operation="probe.stick"):
    """Build a service that cannot be closed."""


class Blot:
    """What has a wire form that is no JSON."""


codec.register(Blot, lambda _: object(), lambda _: Blot())


@contract
class Blotted(Result):
    """What cannot be written."""

    blot: Blot


@contract
class Smear(Call[Blotted], operation="probe.smear"):
    """Give a result that cannot be written."""


@handles(Smear)
def smear(call: Smear, scope: Scope) -> Blotted:
    return Blotted(Blot())


class Sticky:
    def close(self) -> None:
        threading.Event().wait()


sticky = once(Sticky)


@contract
class Deafen(Call[Seen], operation="probe.deafen"):
    """Have the worker fetch nothing more, soon after this call has ended; all else of it goes on."""


@handles(Deafen)
def deafen(call: Deafen, scope: Scope) -> Seen:
    def stop() -> None:
        for each in gc.get_objects():
            if isinstance(each, Fetching):
                each._refused_until = float("inf")

    threading.Timer(0.5, stop).start()
    return Seen("deaf")


@handles(CountErrors)
def count_errors(call: CountErrors, scope: Scope) -> Seen:
    return Seen(str(sum(type(each) is ExceptionInfo for each in gc.get_objects())))


@handles(Stick)
def stick(call: Stick, scope: Scope) -> Seen:
    sticky()
    return Seen("stuck")


@handles(Echo)
def echo(call: Echo, scope: Scope) -> Seen:
    scope.progress(1, 2, "half")
    return Seen(call.text, scope.attempts, call.body)


@handles(Nothing)
def nothing(call: Nothing, scope: Scope) -> Seen:
    return Seen("")


@handles(Fail)
def fail(call: Fail, scope: Scope) -> Seen:
    raise RuntimeError(f"could not log in with {call.token} at https://me:{call.token}@host/")


@handles(Leave)
def leave(call: Leave, scope: Scope) -> Seen:
    sys.exit("gone")


@handles(Flaky)
def flaky(call: Flaky, scope: Scope) -> Seen:
    if scope.attempts < call.succeed_at:
        raise ConnectFailed("probe", f"attempt {scope.attempts}")
    return Seen("came through", scope.attempts)


@handles(Hold)
def hold(call: Hold, scope: Scope) -> Seen:
    with Path(call.started).open("a", encoding="ascii") as marks:
        marks.write("x")
    while not Path(call.release).exists():
        scope.check()
        scope.cancelled.wait(0.02)
    return Seen("released", scope.attempts)


@handles(Seize)
def seize(call: Seize, scope: Scope) -> Seen:
    Path(call.started).touch()
    while not Path(call.release).exists():
        sum(range(1_000_000))
        scope.check()
    return Seen("let go")


_shared = threading.Lock()


@handles(Contend)
def contend(call: Contend, scope: Scope) -> Seen:
    with _shared:
        return hold(Hold(call.started, call.release), scope)


@handles(Clog)
def clog(call: Clog, scope: Scope) -> Seen:
    ended = threading.Event()

    def block() -> None:
        try:
            hold(Hold(call.started, call.release), scope)
        finally:
            ended.set()

    get_event_loop().call_soon(block)
    ended.wait()
    return Seen("unclogged")


@handles(Append)
def append(call: Append, scope: Scope) -> Seen:
    with Path(call.path).open("a", encoding="ascii") as file:
        file.write(f"{call.word}\n")
    return Seen(call.word)


@handles(Snooze)
def snooze(call: Snooze, scope: Scope) -> Seen:
    marks = Path(call.marks)
    so_far = marks.read_text() if marks.exists() else ""
    if len(so_far) < call.times:
        marks.write_text(so_far + "z")
        raise Later(call.pause_s)
    return Seen("rested", scope.attempts)


@handles(Sleepy)
def sleepy(call: Sleepy, scope: Scope) -> Seen:
    Path(call.started).touch()
    while not Path(call.release).exists():
        threading.Event().wait(0.02)
    raise Later(call.pause_s)


@handles(Die)
def die(call: Die, scope: Scope) -> Seen:
    marker = Path(call.marker)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        raise TimedOut("probe.die", 0)
    return Seen("survived")


@handles(Quit)
def quit_(call: Quit, scope: Scope) -> Seen:
    raise SystemExit(3)


@handles(Rest)
def rest(call: Rest, scope: Scope) -> Seen:
    scope.cancelled.wait(call.duration_s)
    scope.check()
    return Seen("rested")


@handles(Burn)
def burn(call: Burn, scope: Scope) -> Seen:
    ends_at = time.thread_time() + call.cpu_s
    while time.thread_time() < ends_at:
        scope.check()
    return Seen("burnt")


@handles(Poison)
def poison(call: Poison, scope: Scope) -> Seen:
    os.kill(os.getpid(), signal.SIGKILL)
    return Seen("never")


@handles(HoldThing)
def hold_thing(call: HoldThing, scope: Scope) -> Seen:
    return Seen(identity.own().hold())


@handles(AskThing)
def ask_thing(call: AskThing, scope: Scope) -> Seen:
    if call.started:
        hold(Hold(call.started, call.release), scope)
    return Seen(str(os.getpid()))


@handles(DropThing)
def drop_thing(call: DropThing, scope: Scope) -> Seen:
    identity.own().release(call.thing)
    return Seen("dropped")


_kept: list[bytes] = []


@handles(Grow)
def grow(call: Grow, scope: Scope) -> Seen:
    _kept.append(os.urandom(1) * call.size_bytes)
    return Seen(str(os.getpid()))

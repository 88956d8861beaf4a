"""Programs that outlive the call that started them: asked for, fed, read, signalled and ended by later calls."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Final

from config import programs
from gaia.codec import content
from gaia.contracts import process
from gaia.errors import StartFailed, TimedOut
from tasks.process.admission import Admission
from tasks.process.held import Held, HeldPrograms
from tasks.process.launcher.keeper import SWEEP_S
from tasks.process.loop import Loop, LoopThread
from tasks.process.program import Program
from tasks.process.registry import Registry, record
from tasks.runtime.entrusted import Entrusted
from tasks.runtime.identity import Identity
from tasks.scope import Later, Scope

KILL_S: Final = SWEEP_S + 1.0
"""How long a killed tree may take to die before the call gives it up."""
HOLD_S: Final = 2.0
"""How long `wait` keeps a slot of the worker, once; then it gives it back."""
RETURN_S: Final = 1.0
"""When such a call comes back, to look without waiting: many that wait must not keep out the one that kills."""

log = logging.getLogger(__name__)


class Keeping:
    """The operations about started programs, and one thread that turns their loop."""

    def __init__(
        self,
        given: programs.Process,
        admission: Admission,
        own: Callable[[], Identity],
        registry: Registry | None,
        entrusted: Entrusted | None,
    ) -> None:
        """Keep nothing yet."""
        self._settings = given
        self._admission = admission
        self._own = own
        self._registry = registry
        self._entrusted = entrusted
        self._held = HeldPrograms(given.remember_s)
        self._lock = threading.Condition()
        self._stopping = self._draining = False
        self._thread: LoopThread | None = None
        self._tidying = ThreadPoolExecutor(1, thread_name_prefix="gaia-process-tidy")

    def start(self, call: process.Start, scope: Scope) -> process.Started:
        """Start a program that this worker keeps.

        Raises:
            InvalidCall, ExecutableDenied, StartFailed, PathDenied, FileMissing, FileFailed, NotConfigured,
            InvalidSetting, Unreachable, Cancelled, DeadlineExceeded
            Later: if every place is taken.
        """
        scope.check()
        own = self._own()
        with ExitStack() as stack, ExitStack() as failing:
            plan = stack.enter_context(self._admission.admitted(call, scope))
            loop = self._kept_loop(call.argv[0])
            program = self._admission.start(
                plan,
                scope,
                loop,
                keep_stdin=call.stdin_open,
                tail=True,
                most_bytes=call.limits.output_bytes,
            )
            failing.callback(self._admission.let_go, program)
            found = program.stat()
            entry = record(own.hold(), own.node, program.pid, found, program=call.argv[0], profile=call.profile)
            failing.callback(own.release, entry.id)
            scope.check()
            program.attach()
            failing.pop_all()
            keeping = stack.pop_all()
        return self._kept(Held(program, entry, None if found is None else found.parent), keeping)

    def _kept(self, held: Held, keeping: ExitStack) -> process.Started:
        """Take a program in that runs already; from here on its end tidies up, also one that came before."""
        program, entry = held.program, held.record
        keeping.callback(self._own().release, entry.id)
        if self._registry is not None:
            self._registry.enter(entry)
            keeping.callback(self._registry.leave, entry)
        self._held.add(held)
        program.when_ended(lambda: self._ended(held, keeping))
        if self._stopping:
            program.stop("worker_stopped", self._settings.grace_s)
        return process.Started(entry.id, program.pid, entry.worker)

    def _ended(self, held: Held, keeping: ExitStack) -> None:
        """Take note that a kept program has ended; in the loop's thread, so the slow part is done elsewhere."""
        held.ended_at = time.monotonic()
        if held.program.exited is not None:
            self._admission.counters.ended(held.program.exited)
        self._admission.let_go(held.program)
        with suppress(RuntimeError):  # the service is closed, and its directory goes as a whole
            if self._draining:
                self._tidying.submit(self._answer_waits, held)
            self._tidying.submit(_tidy, keeping)

    def _kept_loop(self, program: str) -> Loop:
        with self._lock:
            if self._stopping:
                raise StartFailed(program, "the worker is stopping")
            if self._thread is None:
                self._thread = LoopThread("gaia-process")
                self._tidying.submit(self._sweep)
            return self._thread.loop

    def _sweep(self) -> None:
        """Clear the list of what lost workers left on it: nobody might ever ask for that."""
        try:
            if self._registry is not None:
                self._registry.sweep(self._own())
        except Exception:  # among others Redis may be away
            log.warning("the cluster's list of programs could not be swept", exc_info=True)

    def drain(self) -> None:
        """Take over the calls that wait in Redis for a program: the worker's end is to be their answer, too."""
        with self._lock:
            self._draining = True
        waited_for = [each for each in self._held.all() if each.waits]
        if self._entrusted is None or not waited_for:
            return
        self._entrusted.take("process", [call_id for each in waited_for for call_id in list(each.waits)])
        for each in waited_for:
            if each.program.ended:
                self._tidying.submit(self._answer_waits, each)

    def _answer_waits(self, held: Held) -> None:
        for call_id in list(held.waits):
            try:
                if self._entrusted is not None:
                    self._entrusted.answer(call_id, held.state())
            except Exception:  # among others Redis may be away: the call comes due elsewhere, and ends there
                log.warning("a call that waits for a program could not be answered", exc_info=True)

    # --- about one kept program

    def status(self, call: process.Status, scope: Scope) -> process.State:
        """Tell how a program is.

        Raises:
            ProcessMissing
        """
        scope.check()
        return self._held.get(call.id).state()

    def wait(self, call: process.Wait, scope: Scope) -> process.State:
        """Wait for the end of a program, in this slot for at most `HOLD_S`.

        Raises:
            ProcessMissing, Cancelled, DeadlineExceeded
            Later: to go on waiting without the slot.
        """
        held = self._held.get(call.id)
        now = scope.clock.monotonic()
        hold_s = 0.0 if held.looked(scope.id) else HOLD_S
        longest_s = scope.ends_at - now if call.timeout_s is None else call.timeout_s
        left_s = max(0.0, held.until(scope.id, longest_s, now) - now)
        ended = self._waited(held, min(left_s, hold_s), scope)
        left_s -= scope.clock.monotonic() - now
        if not ended and self._draining:
            # Nobody would serve the queue that it came back to.
            ended = self._waited(held, left_s, scope)
        elif not ended and left_s > 0:
            if call.tail:
                tell(held.program, scope)
            raise Later(min(RETURN_S, left_s))
        return self._answered(held, scope)

    def _answered(self, held: Held, scope: Scope) -> process.State:
        held.waits.pop(scope.id, None)
        return held.state()

    def write(self, call: process.Write, scope: Scope) -> process.Accepted:
        """Write to a program's stdin, as much as there is room for within the call's time.

        Raises:
            InvalidCall: its stdin is closed.
            ProcessMissing, Cancelled, DeadlineExceeded
        """
        program = self._held.get(call.id).program
        data = content(call.data)
        bound_s = scope.bound_s(call.timeout_s)

        def has_room() -> bool:
            return not program.takes_input or program.buffered_bytes < process.WRITE_BYTES or scope.cancelled.is_set()

        with program.changed:
            call.require("id", "names a program whose stdin is closed", holds=program.takes_input)
            with scope.cancelled.calling(lambda: _wake(program)):
                program.changed.wait_for(has_room, bound_s)
            _check(scope)
            room = max(0, process.WRITE_BYTES - program.buffered_bytes) if program.takes_input else 0
            taken = data[:room]
            if program.takes_input:
                program.write(taken, close=call.close and len(taken) == len(data))
        return process.Accepted(len(taken), closed=not program.takes_input)

    def output(self, call: process.Output, scope: Scope) -> process.Chunk:
        """Give output from an offset on, after waiting for some at most `wait_s`.

        Raises:
            ProcessMissing, Cancelled, DeadlineExceeded
        """
        program = self._held.get(call.id).program
        capture = program.captures[call.stream]
        bound_s = scope.bound_s(call.wait_s)

        def has_some() -> bool:
            return capture.total_bytes > call.offset or capture.ended or scope.cancelled.is_set()

        with program.changed, scope.cancelled.calling(lambda: _wake(program)):
            program.changed.wait_for(has_some, bound_s)
            self._stop_if_stopping(program, scope)
            _check(scope)
            offset, data = capture.since(call.offset, call.max_bytes)
            following = offset + len(data)
            ended = capture.ended and following >= capture.total_bytes
        return process.Chunk(data, offset, following, ended)

    def signal(self, call: process.Signal, scope: Scope) -> process.State:
        """Send a signal; a program that has ended takes none, and that is no error.

        Raises:
            ProcessMissing
        """
        scope.check()
        held = self._held.get(call.id)
        held.program.signal(call.signal, whole=call.tree)
        return held.state()

    def terminate(self, call: process.Terminate, scope: Scope) -> process.State:
        """Stop a program, and wait until its tree has ended.

        Raises:
            ProcessMissing, Cancelled, DeadlineExceeded
            TimedOut: if it did not die of SIGKILL within `KILL_S`.
        """
        return self._stopped(self._held.get(call.id), call.grace_s, scope)

    def kill(self, call: process.Kill, scope: Scope) -> process.State:
        """Kill a program, and wait until its tree has ended.

        Raises:
            ProcessMissing, Cancelled, DeadlineExceeded
            TimedOut: if it did not die of SIGKILL within `KILL_S`.
        """
        return self._stopped(self._held.get(call.id), 0.0, scope)

    def _stopped(self, held: Held, grace_s: float, scope: Scope) -> process.State:
        held.program.stop("cancelled", grace_s)
        if not self._waited(held, grace_s + KILL_S, scope):
            raise TimedOut(scope.operation, grace_s + KILL_S)
        return held.state()

    def _waited(self, held: Held, timeout_s: float, scope: Scope) -> bool:
        program, token = held.program, scope.cancelled
        with program.changed, token.calling(lambda: _wake(program)):
            program.changed.wait_for(lambda: program.ended or token.is_set(), scope.bound_s(timeout_s))
            self._stop_if_stopping(program, scope)
        if not program.ended:
            scope.check()
        return program.ended

    def _stop_if_stopping(self, program: Program, scope: Scope) -> None:
        """See a program out if the worker ends: that is the answer then. The lock of `changed` is held."""
        if scope.cancelled.stopping:
            program.stop("worker_stopped", self._settings.grace_s)
            program.changed.wait_for(lambda: program.ended, self._settings.grace_s + KILL_S)

    def stop_kept(self, ends_at: float) -> None:
        """Stop every program that is kept, and wait until that monotonic time at most."""
        with self._lock:
            self._stopping = True
        kept = [each.program for each in self._held.all() if not each.program.ended]
        for program in kept:
            program.stop("worker_stopped", self._settings.grace_s)
        for program in kept:
            program.wait(max(0.0, ends_at - time.monotonic()))

    def close_loop(self) -> None:
        """End the threads; programs that live on are let go with their keepers."""
        self._tidying.shutdown(wait=True)
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()


def _tidy(keeping: ExitStack) -> None:
    try:
        keeping.close()
    except Exception:
        log.exception("a program that ended could not be tidied up")


def tell(program: Program, scope: Scope) -> None:
    """Tell how much was written, and the last line."""
    line = program.captures["stdout"].last_line() or program.captures["stderr"].last_line()
    scope.progress(float(program.output_bytes), None, line)


def _check(scope: Scope) -> None:
    """Check the scope; a worker that ends is no reason to keep back what there is."""
    if not scope.cancelled.stopping:
        scope.check()


def _wake(program: Program) -> None:
    with program.changed:
        program.changed.notify_all()

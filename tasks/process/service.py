"""Running and keeping programs under limits.

`ProcessService` owns the programs of its running calls and those it keeps; `close()` stops them all. Between it and
each program stands a keeper, a process of ours (`tasks.process.launcher`), which kills the program's whole tree when
the program ends, when a limit is passed and when this worker dies.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from config import programs
from gaia.contracts import process
from gaia.errors import GaiaError, NotConfigured, StartFailed, TimedOut
from tasks import metrics
from tasks.process.admission import Admission
from tasks.process.keepers import sweep_directories
from tasks.process.keeping import KILL_S, Keeping, tell
from tasks.process.launcher import groups
from tasks.process.loop import Loop
from tasks.process.program import Program
from tasks.process.quotas import Quotas
from tasks.process.registry import Registry
from tasks.roots.roots import Roots
from tasks.runtime.entrusted import Entrusted
from tasks.runtime.identity import Identity
from tasks.scope import Scope


class ProcessService(Keeping):
    """The operations of the `process` queue; those about started programs are `Keeping`'s."""

    def __init__(
        self,
        *,
        settings: programs.Process,
        roots: Roots,
        own: Callable[[], Identity],
        registry: Registry | None = None,
        quotas: Quotas | None = None,
        entrusted: Entrusted | None = None,
    ) -> None:
        """Take what it needs; `own` gives the worker's identity. Without `registry` nothing is told to the cluster."""
        admission = Admission(settings, roots, quotas)
        super().__init__(settings, admission, own, registry, entrusted)
        self._loops: dict[Loop, None] = {}
        metrics.PROGRAMS_MEMORY_BYTES.set_function(self._held_bytes)

    def run(self, call: process.Run, scope: Scope) -> process.Exited:
        """Run a program to its end. Its `timeout_s` passing is an answer; the deadline passing is an error.

        What a program leaves running when it ends by itself is killed at once. A tree that is stopped gets SIGTERM and
        the grace time first, unless it has too much memory. A service that is closed starts nothing: the call goes back
        to the queue.

        Raises:
            InvalidCall, ExecutableDenied, StartFailed, PathDenied, FileMissing, FileFailed, NotConfigured,
            InvalidSetting, Unreachable, Cancelled, DeadlineExceeded
            TimedOut: if the program did not die of SIGKILL within `KILL_S`.
            Later: if every place is taken.
        """
        scope.check()
        if self._stopping:
            raise StartFailed(call.argv[0], "the worker is stopping")
        with ExitStack() as stack:
            plan = stack.enter_context(self._admission.admitted(call, scope))
            loop = stack.enter_context(self._looping(scope))
            program = self._admission.start(plan, scope, loop, most_bytes=plan.bounds.output_bytes)
            if call.tail:
                program.on_output = lambda: tell(program, scope)
            try:
                program.attach()
                found = self._watched(program, loop, scope)
            finally:
                self._admission.let_go(program)
        if program.cause in ("cancelled", "deadline"):
            scope.check()
        return found

    def _watched(self, program: Program, loop: Loop, scope: Scope) -> process.Exited:
        """Turn the loop until the program has ended, whichever way that comes."""
        loop.until(lambda: program.ended or self._cause(scope) is not None, scope.ends_at)
        if not program.ended:
            program.stop(self._cause(scope) or "deadline", self._settings.grace_s)
            loop.until(lambda: program.ended, time.monotonic() + self._settings.grace_s + KILL_S)
        if program.exited is None:
            program.abandon()
        if program.exited is None or not program.clean:
            raise TimedOut(scope.operation, self._settings.grace_s + KILL_S)
        self._admission.counters.ended(program.exited)
        return program.exited

    def _cause(self, scope: Scope) -> str | None:
        if self._stopping or scope.cancelled.stopping:
            return "worker_stopped"
        return "cancelled" if scope.cancelled.is_set() else None

    @contextmanager
    def _looping(self, scope: Scope) -> Iterator[Loop]:
        """Give a loop of this call's own that a cancel and the worker's end wake."""
        loop = Loop()
        with self._lock:
            self._loops[loop] = None
        try:
            with scope.cancelled.calling(loop.wake):
                yield loop
        finally:
            with self._lock:
                del self._loops[loop]
                self._lock.notify_all()
            loop.close()

    def list(self, call: process.List, scope: Scope) -> process.Listed:
        """List the started programs of the cluster.

        Raises:
            Unreachable, NotConfigured
        """
        scope.check()
        now = time.time()
        entries = [
            process.Listing(
                id=entry.id,
                worker=entry.worker,
                host=entry.host,
                pid=entry.pid,
                pid_started=entry.pid_started,
                program=entry.program,
                profile=entry.profile,
                age_s=max(0.0, now - entry.started_at),
                lost=lost,
            )
            for entry, lost in self._required_registry().list()
            if call.worker in (None, entry.worker)
        ]
        return process.Listed(tuple(entries))

    def cleanup(self, call: process.Cleanup, scope: Scope) -> process.Cleaned:
        """Forget what has ended and, without an id, clear away after lost workers.

        Raises:
            ProcessMissing, Unreachable
        """
        scope.check()
        if call.id is not None:
            self._held.get(call.id)
            return process.Cleaned(self._held.forget(call.id), 0, 0)
        records, killed = (0, 0) if self._registry is None else self._registry.sweep(self._own())
        killed += groups.sweep(None if self._settings.cgroup is None else str(self._settings.cgroup))
        sweep_directories()
        return process.Cleaned(self._held.forget(), records, killed)

    def stats(self, call: process.Stats, scope: Scope) -> process.ProcessStats:
        """Give this worker's counters.

        Raises:
            StartFailed, InvalidSetting: if no launcher can be had.
        """
        del call
        scope.check()
        totals, holding = self._admission.counters.totals(), self._admission.keepers.holding()
        states = [each.state() for each in self._held.all()]
        return process.ProcessStats(
            worker=self._own().node,
            held=sum(each.running for each in states),
            remembered=sum(not each.running for each in states),
            capacity=self._admission.counters.capacity,
            memory_bytes=self._admission.keepers.held_bytes,
            keepers_idle=self._admission.keepers.idle,
            keepers_made=self._admission.keepers.made,
            enforcement=holding.enforcement,
            pid_namespace=holding.pid_namespace,
            **totals._asdict(),
        )

    def health(self, call: process.Health, scope: Scope) -> process.ProcessHealth:
        """Say how this worker is; what is wrong is an answer."""
        del call
        scope.check()
        worker = self._own().node
        try:
            enforcement, namespace = self._admission.keepers.holding()
        except GaiaError as failure:
            return process.ProcessHealth(worker, "unhealthy", (str(failure),), "sampled", pid_namespace=False)
        full = self._admission.counters.totals().running >= self._admission.counters.capacity
        signs = {
            "no executable is allowed (GAIA_PROCESS__EXECUTABLES)": not self._settings.executables,
            "limits are sampled: no control group can be had": enforcement == "sampled",
            "a fork storm could outrun its end: no PID namespace either": enforcement == "sampled" and not namespace,
            "every place is taken": full,
        }
        findings = tuple(finding for finding, holds in signs.items() if holds)
        return process.ProcessHealth(worker, "degraded" if findings else "healthy", findings, enforcement, namespace)

    def close(self) -> None:
        """Stop what runs, and wait for it, at most the grace time and a little more."""
        ends_at = time.monotonic() + self._settings.grace_s + KILL_S
        with self._lock:
            self._stopping = True
            loops = list(self._loops)
        for loop in loops:
            loop.wake()
        self.stop_kept(ends_at)
        with self._lock:
            self._lock.wait_for(lambda: not self._loops, max(0.0, ends_at - time.monotonic()))
        self.close_loop()
        self._admission.close()
        metrics.PROGRAMS_MEMORY_BYTES.set_function(lambda: 0.0)

    def _held_bytes(self) -> float:
        return float(self._admission.keepers.held_bytes)

    def _required_registry(self) -> Registry:
        if self._registry is None:
            raise NotConfigured("GAIA_REDIS_URL", "the list of started programs is kept there")
        return self._registry

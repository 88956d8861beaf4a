"""What every program passes: it is judged, takes its places, is started, and gives its keeper back."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from config import programs
from gaia.contracts import process
from gaia.errors import GaiaError
from tasks.process.counters import Counters
from tasks.process.keepers import Keepers
from tasks.process.loop import Loop
from tasks.process.program import Program
from tasks.process.quotas import Quotas
from tasks.process.starting import START_S, Plan, Starter
from tasks.roots.roots import Roots
from tasks.scope import Later, Scope

HOLD_S: Final = 0.5
"""How long a call waits for a place; else a worker without any would fetch and give back all day."""
STARTS: Final = 2 * (os.cpu_count() or 1)
"""Starts under way at once: more only get in each other's way, in the interpreter and in the kernel."""
FULL_S: Final = 0.25
"""When a call comes back that found every place taken."""


class Admission:
    """Owns the keepers and the count of places."""

    def __init__(self, given: programs.Process, roots: Roots, quotas: Quotas | None) -> None:
        """Start nothing yet."""
        self._settings = given
        self._quotas = quotas
        self.counters = Counters(given.concurrency)
        self._starting = threading.BoundedSemaphore(STARTS)
        self.keepers = Keepers(
            enforcement=given.enforcement,
            cgroup=None if given.cgroup is None else str(given.cgroup),
            pid_namespace=given.pid_namespace,
        )
        self._starter = Starter(given=given, roots=roots, keepers=self.keepers)

    @contextmanager
    def admitted(self, call: process.Run | process.Start, scope: Scope) -> Iterator[Plan]:
        """Judge a call, and take its places: one of this worker, and one of its profile in the cluster.

        A place of the worker is waited for, at most `HOLD_S`.

        Raises:
            Later: if they are taken.
            Unreachable: if the profile has a bound in the cluster and Redis is away.
            Cancelled, DeadlineExceeded: of the call, while it waits.
            InvalidCall, ExecutableDenied, and what else refuses a program.
        """
        with ExitStack() as stack:
            try:
                plan = stack.enter_context(self._starter.planned(call))
            except GaiaError:
                self.counters.refused()
                raise
            if not self.counters.enter(scope.bound_s(HOLD_S)):
                raise Later(FULL_S)
            stack.callback(self.counters.leave)
            profile = self._settings.profile(call.profile)
            if self._quotas is not None and profile is not None:
                stack.enter_context(self._quotas.taken(scope, call.profile, profile.concurrency))
            yield plan

    def start(self, plan: Plan, scope: Scope, loop: Loop, **options: object) -> Program:
        """Start a program, after those that are being started; `options` are those of `Program`.

        Raises:
            Later: if these take long.
            StartFailed, InvalidSetting, Cancelled, DeadlineExceeded
        """
        if not self._starting.acquire(timeout=scope.bound_s(START_S)):
            raise Later(FULL_S)
        try:
            program = self._starter.start(plan, scope, loop, **options)
        except GaiaError:
            self.counters.refused()
            raise
        finally:
            self._starting.release()
        self.counters.started()
        return program

    def let_go(self, program: Program) -> None:
        """Take the keeper back if it is good for another program."""
        if not program.ended:
            program.abandon()
        if program.reusable:
            self.keepers.give_back(program.keeper)
        else:
            program.keeper.close()

    def close(self) -> None:
        """Let every keeper go."""
        self.keepers.close()

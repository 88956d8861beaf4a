"""From a call to a running program."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from config import programs
from gaia.codec import content
from gaia.contracts import process
from gaia.errors import StartFailed
from tasks.process.bounds import Bounds, bounds
from tasks.process.environment import environment
from tasks.process.executables import Executables
from tasks.process.homes import Homes
from tasks.process.keepers import IDLE, Keeper, Keepers, answer
from tasks.process.launcher import messages
from tasks.process.loop import Loop
from tasks.process.program import Pipes, Program
from tasks.roots.roots import Roots
from tasks.scope import Scope

START_S: Final = 20.0
"""For a keeper to start a program; one on an idle machine takes a millisecond."""


@dataclass(frozen=True)
class Plan:
    """A program that may run: everything that can be refused has been looked at."""

    call: process.Run | process.Start
    executable: str
    env: dict[str, str]
    bounds: Bounds
    home: str
    cwd: int


class Starter:
    """Judges calls, and starts what may run."""

    def __init__(self, *, given: programs.Process, roots: Roots, keepers: Keepers) -> None:
        """Take the settings, the roots that working directories lie beneath, and the keepers."""
        self._settings = given
        self._roots = roots
        self._executables = Executables(given.executables, roots=roots)
        self._keepers = keepers
        self._homes = Homes()

    @contextmanager
    def planned(self, call: process.Run | process.Start) -> Iterator[Plan]:
        """Judge a call and give it an empty directory, which nobody sees afterwards.

        Raises:
            InvalidCall, ExecutableDenied, StartFailed, PathDenied, FileMissing, FileFailed, NotConfigured,
            InvalidSetting
        """
        _check_text(call)
        found = bounds(call, self._settings)
        executable = self._executables.admit(call.argv[0])
        with ExitStack() as stack:
            home = stack.enter_context(self._homes.lent(call.argv[0], self._keepers.directory()))
            env = environment(call, self._settings.env_allowed, home)
            cwd = self._working_directory(call, home, stack)
            yield Plan(call, executable, env, found, home, cwd)

    def start(self, plan: Plan, scope: Scope, loop: Loop, **options: Any) -> Program:
        """Start the program; `options` are those of `Program`.

        Raises:
            StartFailed, InvalidSetting, Cancelled, DeadlineExceeded
        """
        enforcement = self._keepers.holding().enforcement
        stdin = content(plan.call.stdin)
        with _Streams(keep_stdin=bool(stdin) or bool(options.get("keep_stdin"))) as streams:
            keeper = self._asked(plan, streams)
            try:
                pidfd = _answered(keeper, plan, scope)
            except BaseException:
                keeper.close()
                raise
            pipes = streams.kept()
        return Program(
            keeper=keeper,
            pidfd=pidfd,
            pipes=pipes,
            loop=loop,
            bounds=plan.bounds,
            enforcement=enforcement,
            stdin=stdin,
            **options,
        )

    def _asked(self, plan: Plan, streams: "_Streams") -> Keeper:
        """Ask a keeper to start the program; one that was killed while it waited is passed over."""
        sampled = self._keepers.holding().enforcement == "sampled"
        request = {
            "argv": plan.call.argv,
            "executable": plan.executable,
            "env": plan.env,
            **plan.bounds.request(),
        }
        for _ in range(IDLE + 1):
            keeper = self._keepers.take(plan.bounds.shape(sampled=sampled))
            try:
                messages.send(keeper.channel, request, (plan.cwd, *streams.theirs))
            except OSError:
                keeper.close()
            else:
                return keeper
        raise StartFailed(plan.call.argv[0], "its keepers do not live")

    def _working_directory(self, call: process.Run | process.Start, home: str, stack: ExitStack) -> int:
        """Give a descriptor that the program enters: no name is resolved again."""
        if call.cwd is not None:
            return stack.enter_context(self._roots.directory(call.cwd))
        fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        return fd


class _Streams:
    """The pipes of a start; on leaving, the program's ends are closed, and the worker's too unless they were kept."""

    def __init__(self, *, keep_stdin: bool) -> None:
        self._ours: dict[str, int] = {}
        self._theirs: dict[str, int] = {}
        self._keep_stdin = keep_stdin

    def __enter__(self) -> Self:
        try:
            if self._keep_stdin:
                self._theirs["stdin"], self._ours["stdin"] = os.pipe()
            else:
                self._theirs["stdin"] = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            for name in ("stdout", "stderr"):
                self._ours[name], self._theirs[name] = os.pipe()
        except OSError:
            self._close(self._ours, self._theirs)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close(self._ours, self._theirs)

    @property
    def theirs(self) -> tuple[int, ...]:
        return tuple(self._theirs[each] for each in ("stdin", "stdout", "stderr"))

    def kept(self) -> Pipes:
        ours, self._ours = self._ours, {}
        for fd in ours.values():
            os.set_blocking(fd, False)
        return Pipes(ours.get("stdin"), ours["stdout"], ours["stderr"])

    @staticmethod
    def _close(*ends: dict[str, int]) -> None:
        for each in ends:
            for fd in each.values():
                os.close(fd)


def _answered(keeper: Keeper, plan: Plan, scope: Scope) -> int:
    """Wait until a keeper has started the program; give the pidfd."""
    program = plan.call.argv[0]
    reply = answer(keeper, scope.bound_s(START_S))
    if "started" in reply.body and reply.fds:
        return reply.fds[0]
    if not reply.body:
        scope.check()
    raise StartFailed(program, str(reply.body.get("failed", "its keeper has gone")))


def _check_text(call: process.Run | process.Start) -> None:
    """Refuse text that has no bytes: a lone surrogate, which JSON can carry."""
    texts = {"argv": call.argv, "env": (*call.env, *call.env.values())}
    for name, values in texts.items():
        try:
            for each in values:
                os.fsencode(each)
        except UnicodeEncodeError:
            raise call.refuse(name, "holds a character that cannot be encoded") from None

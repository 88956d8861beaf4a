"""Calls of the `process` queue: programs under limits, run to their end or started and kept by a worker."""

from collections.abc import Mapping
from typing import Final, Literal, TypeVar

from gaia.codec import Body
from gaia.contracts.base import Call, Result, contract, secret

Reason = Literal["exited", "signal", "timeout", "memory", "cpu", "processes", "output", "cancelled", "worker_stopped"]
"""Why a program ended: by itself, by a signal that Gaia did not send for a limit, or stopped by Gaia for what is named.

`cpu` is CPU seconds, `processes` their number where the kernel cannot refuse one more (`sampled`), `cancelled` also
`process.terminate` and `process.kill`.
"""

Enforcement = Literal["cgroup2", "cgroup1", "sampled"]
"""How limits were held: by the kernel over the whole tree, or by looking at it every 50 ms to 1.5 s."""

Stream = Literal["stdout", "stderr"]

R = TypeVar("R")

LONGEST_S: Final = 7 * 86_400.0
LONGEST_HOLD_S: Final = 30.0
"""No call waits longer in a worker's slot for output, room or an end that was asked for."""
WRITE_BYTES: Final = 1024 * 1024
OPEN_FILES_LEAST: Final = 32
_SIGNALS: Final = 64


@contract
class Limits(Result):
    """Bounds of one program and everything it starts. None takes the profile's value.

    `memory_bytes`, `cpu_s` (user and system) and `processes` count over the whole tree; `cpu_percent` is of one core.
    `output_bytes` is what stdout and stderr may hold each. `open_files` and `file_bytes` hold for each process and each
    file. `network=False` leaves no interface but a loopback that is down.
    """

    memory_bytes: int | None = None
    output_bytes: int | None = None
    cpu_percent: int | None = None
    cpu_s: float | None = None
    processes: int | None = None
    open_files: int | None = None
    file_bytes: int | None = None
    network: bool | None = None

    def complaint(self) -> str | None:
        """Say what no kernel could hold, None if all is well."""
        least = {
            **dict.fromkeys(("memory_bytes", "output_bytes", "cpu_percent", "cpu_s", "processes", "file_bytes"), 0),
            "open_files": OPEN_FILES_LEAST - 1,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value <= bound:
                return f"{name} must be {'positive' if bound == 0 else f'at least {bound + 1}'}"
            if value is not None and value >= 1 << 62:
                return f"{name} is out of range"
        return None


@contract
class Exited(Result):
    """How a program ended.

    `exit_code` is None if a signal ended it, `signal` None if it exited. `truncated` is true when output was cut at
    its limit; `stdout_bytes` and `stderr_bytes` count what was written, also what was cut. Of a started program
    `stdout` and `stderr` are the last bytes. `peak_memory_bytes` is the largest sum over the tree: the kernel's with
    cgroups, else the largest seen. `cpu_s` is user and system time of the tree, without cgroups as far as its processes
    were waited for or sampled.
    """

    exit_code: int | None
    signal: int | None
    reason: Reason
    stdout: bytes = secret("body")
    stderr: bytes = secret("body")
    truncated: bool
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    enforcement: Enforcement
    stdout_bytes: int = 0
    stderr_bytes: int = 0


@contract
class _Program(Call[R]):
    """What `Run` and `Start` share."""

    argv: tuple[str, ...] = secret("argv")
    env: Mapping[str, str] = secret("values", default_factory=dict)
    cwd: str | None = None
    stdin: Body = secret("body", default=b"")
    timeout_s: float | None = None
    limits: Limits = Limits()
    profile: str = "default"

    def check(self) -> None:
        """Refuse what no kernel would start.

        Raises:
            InvalidCall: with the field's name.
        """
        found = self._complaint()
        if found is not None:
            raise self.refuse(*found)
        self.require_between("timeout_s", 0.001, LONGEST_S)

    def _complaint(self) -> tuple[str, str] | None:
        """Give the field that no kernel would take, and what is wrong with it."""
        if not self.argv:
            return "argv", "must name a program"
        if not all(isinstance(each, str) and "\0" not in each for each in self.argv):
            return "argv", "must be strings without NUL"
        if not self.argv[0].startswith("/"):
            return "argv", "must start with an absolute path"
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                return "env", f"{name!r} is no variable"
        found = self.limits.complaint()
        return None if found is None else ("limits", found)


@contract
class Run(_Program[Exited], operation="process.run"):
    """Run a program to its end.

    `argv[0]` is an absolute path that the worker's settings allow; no shell is involved. The environment is clean:
    PATH, LANG and HOME of the worker's choosing, plus the variables of `env` whose names settings allow. `cwd` is
    `root:relative/path` of the files roots, or None for a fresh empty directory that is removed afterwards.
    `profile` names limits in the worker's settings; those of the call come first. Any exit code is an answer, not an
    error. With `tail` the progress tells the bytes written and the last line. A run is never repeated by Gaia unless
    its worker died.
    """

    tail: bool = False


@contract
class Started(Result):
    """A program that a worker keeps: `id` leads every later call there. `pid` is as that worker's machine counts."""

    id: str
    pid: int
    worker: str


@contract
class Start(_Program[Started], operation="process.start"):
    """Start a program that outlives the call, under the same rules as `process.run`.

    Of its output the last bytes are kept, as many as the profile's `output_bytes`, each stream; only an `output_bytes`
    of the call itself ends a program that writes more. With `stdin_open` its stdin stays open for `process.write`.
    """

    stdin_open: bool = False


@contract
class State(Result):
    """A started program. `memory_bytes` and `cpu_s` are of the tree now, 0 once it has ended; `exited` says how."""

    id: str
    worker: str
    pid: int
    program: str
    profile: str
    running: bool
    age_s: float
    memory_bytes: int
    cpu_s: float
    processes: int
    stdout_bytes: int
    stderr_bytes: int
    exited: Exited | None = None


@contract
class Status(Call[State], operation="process.status"):
    """Tell how a started program is. One that ended is remembered for a while (settings)."""

    HOLDER = "id"

    id: str


@contract
class Wait(Call[State], operation="process.wait"):
    """Wait for the end of a started program, at most `timeout_s`, or until the call's deadline.

    A program that runs on is an answer if `timeout_s` has passed. A long wait keeps no slot of the worker. With `tail`
    the progress tells the bytes written and the last line.
    """

    HOLDER = "id"

    id: str
    timeout_s: float | None = None
    tail: bool = False

    def check(self) -> None:
        """Check the bound."""
        self.require_between("timeout_s", 0.001, LONGEST_S)


@contract
class Accepted(Result):
    """How many bytes stdin took: fewer than given if the program did not read in time, or any more."""

    size_bytes: int
    closed: bool


@contract
class Write(Call[Accepted], operation="process.write"):
    """Write to the stdin of a program that was started with `stdin_open`; close it afterwards if told to.

    Up to a mebibyte is buffered for the program; the call waits for room at most `timeout_s`.
    """

    HOLDER = "id"

    id: str
    data: Body = secret("body", default=b"")
    close: bool = False
    timeout_s: float = 10.0

    def check(self) -> None:
        """Check the bound."""
        self.require_between("timeout_s", 0.001, LONGEST_HOLD_S)


@contract
class Chunk(Result):
    """A piece of output. `offset` is that of its first byte: later than asked if what was before is kept no more.

    `ended` says that nothing follows. `next_offset` is where to go on.
    """

    data: bytes = secret("body")
    offset: int
    next_offset: int
    ended: bool


@contract
class Output(Call[Chunk], operation="process.output"):
    """Give output of a started program from an offset on; wait for some at most `wait_s`."""

    HOLDER = "id"

    id: str
    offset: int = 0
    stream: Stream = "stdout"
    max_bytes: int = 1024 * 1024
    wait_s: float = 0.0

    def check(self) -> None:
        """Check the bounds."""
        self.require_between("offset", 0, 1 << 62)
        self.require_between("max_bytes", 1, 64 * 1024 * 1024)
        self.require_between("wait_s", 0, LONGEST_HOLD_S)


@contract
class Signal(Call[State], operation="process.signal"):
    """Send a signal to a started program, or with `tree` to everything it started, too. `signal` is its number."""

    HOLDER = "id"

    id: str
    signal: int
    tree: bool = False

    def check(self) -> None:
        """Check the number, signal(7)."""
        self.require_between("signal", 1, _SIGNALS)


@contract
class Terminate(Call[State], operation="process.terminate"):
    """Send SIGTERM to the tree, and SIGKILL to what is left after `grace_s`; answer when it has ended."""

    HOLDER = "id"

    id: str
    grace_s: float = 2.0

    def check(self) -> None:
        """Check the bound."""
        self.require_between("grace_s", 0, LONGEST_HOLD_S)


@contract
class Kill(Call[State], operation="process.kill"):
    """Kill the tree; answer when it has ended."""

    HOLDER = "id"

    id: str


@contract
class Listing(Result):
    """A started program that runs, as the cluster's registry knows it. `pid_started` is in ticks since boot."""

    id: str
    worker: str
    host: str
    pid: int
    pid_started: int
    program: str
    profile: str
    age_s: float
    lost: bool


@contract
class Listed(Result):
    """The started programs, the oldest first."""

    processes: tuple[Listing, ...]


@contract
class List(Call[Listed], operation="process.list"):
    """List the started programs of the whole cluster, or of one worker. Any worker can tell.

    `lost` marks those whose worker has gone: they were killed with it, and `process.cleanup` removes the record.
    """

    worker: str | None = None


@contract
class Cleaned(Result):
    """What was tidied up: programs forgotten, records of lost workers removed, processes found alive and killed."""

    forgotten: int
    records: int
    killed: int


@contract
class Cleanup(Call[Cleaned], operation="process.cleanup"):
    """Forget programs that have ended, and what lost workers left.

    With an `id` it goes to that program's worker and forgets this one alone, once it has ended. Without, any worker
    forgets all of its own that have ended, removes the records of lost workers in the registry and, on its machine,
    what is left of their processes, control groups and temporary directories.
    """

    HOLDER = "id"

    id: str | None = None


@contract
class ProcessStats(Result):
    """Counters since the worker started, and gauges, of one worker.

    `failed` are programs that ended otherwise than with exit code 0; `reasons` counts ends by reason. `cpu_s` and
    `output_bytes` are sums over programs that ended, `peak_memory_bytes` is the largest of any. `memory_bytes` is of
    all trees now. Keepers are processes that each hold one program, or wait for one.
    """

    worker: str
    running: int
    held: int
    remembered: int
    capacity: int
    peak_running: int
    started: int
    completed: int
    failed: int
    refused: int
    reasons: Mapping[str, int]
    cpu_s: float
    output_bytes: int
    memory_bytes: int
    peak_memory_bytes: int
    keepers_idle: int
    keepers_made: int
    enforcement: Enforcement
    pid_namespace: bool


@contract
class Stats(Call[ProcessStats], operation="process.stats"):
    """Give the counters of the worker that takes the call."""


@contract
class ProcessHealth(Result):
    """How the worker is; `findings` say why it is not healthy.

    `degraded`: it works, with less than it could, or at its capacity. `unhealthy`: it can start nothing.
    """

    worker: str
    status: Literal["healthy", "degraded", "unhealthy"]
    findings: tuple[str, ...]
    enforcement: Enforcement
    pid_namespace: bool


@contract
class Health(Call[ProcessHealth], operation="process.health"):
    """Say how the worker that takes the call is, once its launcher runs and says how limits are held."""

"""Settings of the `process` queue: what may run, and within which limits."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from config.section import Directory, Section, Text


def _program(text: str) -> str:
    """Check an absolute path or glob."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} must be an absolute path or glob")
    return text


Program = Annotated[str, AfterValidator(_program)]
Ceiling = Literal["memory_bytes", "cpu_percent", "timeout_s", "cpu_s", "processes", "output_bytes"]
ProfileName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class Profile(Section):
    """Limits of programs, by a name that calls give; what a call sets itself comes first."""

    memory_bytes: int = Field(default=256 * 1024 * 1024, gt=0)
    """Memory of the tree."""
    cpu_percent: int | None = Field(default=50, gt=0)
    """CPU of the tree, of one core."""
    timeout_s: float = Field(default=300.0, gt=0, le=604_800)
    """Wall time."""
    cpu_s: float | None = Field(default=None, gt=0)
    """CPU time of the tree."""
    processes: int | None = Field(default=128, gt=0)
    """Processes and threads of the tree at once; without control groups, processes."""
    open_files: int | None = Field(default=1024, ge=32)
    """Descriptors of each process."""
    file_bytes: int | None = Field(default=1024 * 1024 * 1024, gt=0)
    """Size of each file written."""
    output_bytes: int = Field(default=1024 * 1024, gt=0, le=64 * 1024 * 1024)
    """What stdout and stderr may hold each."""
    network: bool = True
    """Whether programs see the network."""
    concurrency: int | None = Field(default=None, ge=1)
    """Programs of this profile at once in the whole cluster."""


class Process(Section):
    """Running programs."""

    executables: tuple[Program, ...] = Field(default=(), examples=[["/usr/bin/git", "/opt/tools/*"]])
    """Absolute paths or globs of programs that may run. None by default."""
    env_allowed: tuple[Text, ...] = Field(default=("LANG", "LC_ALL", "TZ", "TERM"), examples=[["LANG", "TZ"]])
    """Names of variables a caller may set."""
    profiles: dict[ProfileName, Profile] = Field(default={}, examples=[{"default": {"memory_bytes": 536870912}}])
    """Name to limits; see docs/process.md. `default` is 256 MiB, 50 % of a core and 300 s, unless it is set here."""
    ceilings: dict[Ceiling, PositiveFloat] = Field(default={}, examples=[{"memory_bytes": 1073741824}])
    """The most a call may ask for: `memory_bytes`, `output_bytes`, `cpu_percent`, `cpu_s`, `timeout_s`, `processes`."""
    concurrency: int = Field(default=200, ge=1, le=10_000)
    """Programs at once in one worker, started and run together."""
    grace_s: float = Field(default=2.0, ge=0, le=60)
    """Between SIGTERM and SIGKILL."""
    remember_s: float = Field(default=300.0, ge=0)
    """How long a started program that has ended can be asked for, with its last output; at most 1000 are."""
    enforcement: Literal["auto", "cgroup2", "cgroup1", "sampled"] = "auto"
    """How limits are held. A control group by name is demanded: without it nothing starts."""
    cgroup: Directory | None = None
    """A directory of the version 2 hierarchy that is delegated to workers and holds no process itself."""
    pid_namespace: bool = True
    """Give each program a PID namespace, where the kernel permits it."""

    def profile(self, name: str) -> Profile | None:
        """Give the profile of a name; there always is a `default`."""
        return self.profiles.get(name, Profile() if name == "default" else None)

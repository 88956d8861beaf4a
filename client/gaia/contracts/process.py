"""Calls of the `process` queue: programs run to their end under limits."""

from collections.abc import Mapping
from typing import Literal

from gaia.codec import Body
from gaia.contracts.base import Call, Result, contract, secret

Reason = Literal["exited", "signal", "timeout", "memory", "output", "cancelled", "worker_stopped"]
"""Why a program ended: by itself, by a foreign signal, or stopped by Gaia for the limit named."""

Enforcement = Literal["sampled"]
"""How limits were held: `sampled` looks at the process tree every 50 ms."""


@contract
class Limits(Result):
    """Bounds of one program and everything it starts. None takes the worker's default.

    `memory_bytes` is the resident memory of the whole tree, `output_bytes` what stdout and stderr may hold each.
    """

    memory_bytes: int | None = None
    output_bytes: int | None = None


@contract
class Exited(Result):
    """How a program ended.

    `exit_code` is None if a signal ended it, `signal` None if it exited. `truncated` is true when output was cut at
    its limit. `peak_memory_bytes` is the largest sum over the tree that was seen, `cpu_s` user and system time of the
    tree's processes as far as it was waited for or sampled.
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


@contract
class Run(Call[Exited], operation="process.run"):
    """Run a program to its end.

    `argv[0]` is an absolute path that the worker's settings allow; no shell is involved. The environment is clean:
    PATH, LANG and HOME of the worker's choosing, plus the variables of `env` whose names settings allow. `cwd` is
    `root:relative/path` of the files roots, or None for a fresh empty directory that is removed afterwards.
    Any exit code is an answer, not an error. A run is never repeated by Gaia unless its worker died.
    """

    argv: tuple[str, ...] = secret("argv")
    env: Mapping[str, str] = secret("values", default_factory=dict)
    cwd: str | None = None
    stdin: Body = secret("body", default=b"")
    timeout_s: float = 300.0
    limits: Limits = Limits()

    def check(self) -> None:
        """Refuse what no kernel would start.

        Raises:
            InvalidCall: with the field's name.
        """
        self.require("argv", "must name a program", holds=len(self.argv) > 0)
        self.require(
            "argv", "must be strings without NUL", holds=all(isinstance(a, str) and "\0" not in a for a in self.argv)
        )
        self.require("argv", "must start with an absolute path", holds=self.argv[0].startswith("/"))
        for name, value in self.env.items():
            sound = bool(name) and "=" not in name and "\0" not in name and "\0" not in value
            self.require("env", f"{name!r} is no variable", holds=sound)
        self.require_between("timeout_s", 0.001, 86_400)
        for name in ("memory_bytes", "output_bytes"):
            limit = getattr(self.limits, name)
            self.require("limits", f"{name} must be positive", holds=limit is None or limit > 0)

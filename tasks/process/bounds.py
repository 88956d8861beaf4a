"""What a program may use: the call's limits, then its profile's, within the worker's ceilings."""

from dataclasses import dataclass
from typing import Any, Final

from config import programs
from gaia.contracts import process

OUTPUT_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""No call may have the worker keep more of stdout or stderr."""

_NAMES: Final = (
    *("memory_bytes", "output_bytes", "cpu_percent", "cpu_s", "processes"),
    *("open_files", "file_bytes", "network"),
)


@dataclass(frozen=True)
class Bounds:
    """What holds for one program; None where there is no bound."""

    timeout_s: float
    memory_bytes: int
    output_bytes: int
    cpu_percent: int | None
    cpu_s: float | None
    processes: int | None
    open_files: int | None
    file_bytes: int | None
    network: bool
    grace_s: float

    def shape(self, *, sampled: bool) -> tuple[int | None, ...]:
        """Give what the programs of one keeper have in common, see `tasks.process.launcher.spawn`."""
        return (self.open_files, self.file_bytes, self.memory_bytes if sampled else None)

    def request(self) -> dict[str, Any]:
        """Give the fields as a keeper takes them."""
        return {
            "timeout_s": self.timeout_s,
            "memory_bytes": self.memory_bytes,
            "cpu_share": None if self.cpu_percent is None else self.cpu_percent / 100,
            "cpu_s": self.cpu_s,
            "processes": self.processes,
            "open_files": self.open_files,
            "file_bytes": self.file_bytes,
            "network": self.network,
            "grace_s": self.grace_s,
        }


def bounds(call: process.Run | process.Start, given: programs.Process) -> Bounds:
    """Find what holds for a call.

    Raises:
        InvalidCall: if there is no such profile, or the call asks for more than the ceilings.
    """
    profile = given.profile(call.profile)
    if profile is None:
        raise call.refuse("profile", f"{call.profile!r} is none of this worker's profiles")
    found: dict[str, Any] = {
        name: getattr(profile, name) if getattr(call.limits, name) is None else getattr(call.limits, name)
        for name in _NAMES
    }
    found["timeout_s"] = profile.timeout_s if call.timeout_s is None else call.timeout_s
    for name, most in given.ceilings.items():
        over = found[name] is None or found[name] > most
        field = name if name == "timeout_s" else "limits"
        call.require(field, f"{name} must be at most {most:.15g} on this worker", holds=not over)
    fits = found["output_bytes"] <= OUTPUT_LIMIT_BYTES
    call.require("limits", f"output_bytes must be at most {OUTPUT_LIMIT_BYTES}", holds=fits)
    return Bounds(**found, grace_s=given.grace_s)

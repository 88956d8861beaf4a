"""Control groups: limits that the kernel holds over a whole tree, in version 2 or version 1; cgroups(7).

A `Site` is where a launcher makes the groups of its keepers: one directory in version 2, one for each controller in
version 1. It carries the worker's pid and start, so that whoever comes later knows whether its owner still lives.
A site counts only if memory, CPU and the number of processes can all be held there; otherwise limits are sampled.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from tasks.process.launcher import kernel, tree

MOUNTS: Final = Path("/proc/self/mountinfo")
OWN: Final = Path("/proc/self/cgroup")

PERIOD_US: Final = 100_000
"""The kernel's default for both versions, "CFS Bandwidth Control"."""
_PREFIX: Final = "gaia-"
_CONTROLLERS: Final = ("memory", "cpu", "pids")
_REMOVAL_S: Final = 1.0
_BUSY_S: Final = 0.005
_NO_LIMIT: Final = "max"

Version = Literal["cgroup2", "cgroup1"]


class Usage(NamedTuple):
    """What a group used so far. `kills` counts what the kernel killed for want of memory."""

    memory_bytes: int
    peak_bytes: int
    cpu_s: float
    kills: int


class Group:
    """The group of one keeper. `at` is its directory for each controller; in version 2 they are the same."""

    def __init__(self, version: Version, at: Mapping[str, Path]) -> None:
        """Make the directories.

        Raises:
            OSError
        """
        self.version = version
        self._at = at
        self._limits: dict[str, float | None] = {}
        for each in self._directories():
            each.mkdir(exist_ok=True)

    def join(self) -> None:
        """Put this process in. A migration may wait for an RCU grace period, some 15 ms: so it is done ahead."""
        for each in self._directories():
            kernel.write(each / "cgroup.procs", "0")

    def limit(self, *, memory_bytes: int, cpu_share: float | None, processes: int | None) -> None:
        """Set the limits; the keeper's own process and what it holds come on top. `cpu_share` is of one core.

        What is as it was is not written: that is most of a start, where programs follow each other.
        """
        wanted = {"memory": memory_bytes, "cpu": cpu_share, "pids": processes}
        changed = {name for name, value in wanted.items() if name not in self._limits or self._limits[name] != value}
        if "memory" in changed:
            self._limit_memory(memory_bytes)
        if "cpu" in changed:
            self._limit_cpu(None if cpu_share is None else max(1000, int(cpu_share * PERIOD_US)))
        if "pids" in changed:
            kernel.write(self._at["pids"] / "pids.max", _NO_LIMIT if processes is None else str(processes + 1))
        self._limits = dict(wanted)

    def forbid_forks(self) -> None:
        """Let no member fork: what is killed then cannot be followed by another."""
        self._limits.pop("pids", None)
        kernel.write(self._at["pids"] / "pids.max", "0")

    def members(self) -> list[int]:
        """Give the pids inside, as far as this process's namespace knows them."""
        return [pid for pid in map(int, _read(self._at["pids"] / "cgroup.procs").split()) if pid]

    def usage(self) -> Usage:
        """Read what was used since the group was made, the peak since `reset`."""
        memory, cpu = self._at["memory"], self._at["cpu"]
        if self.version == "cgroup2":
            now = int(_read(memory / "memory.current"))
            peak = int(_read(memory / "memory.peak", str(now)))
            cpu_s = _field(_read(cpu / "cpu.stat"), "usage_usec") / 1e6
            return Usage(now, peak, cpu_s, _field(_read(memory / "memory.events"), "oom_kill"))
        now = int(_read(memory / "memory.usage_in_bytes"))
        peak = int(_read(memory / "memory.max_usage_in_bytes"))
        cpu_s = int(_read(self._at["cpuacct"] / "cpuacct.usage")) / 1e9
        return Usage(now, peak, cpu_s, _field(_read(memory / "memory.oom_control"), "oom_kill"))

    def reset(self) -> bool:
        """Forget the peak; say whether the kernel can. Version 2 can since Linux 6.12 only, see cgroup-v2.rst."""
        memory = self._at["memory"]
        if self.version == "cgroup1":
            kernel.write(memory / "memory.max_usage_in_bytes", "0")
            return True
        # A write resets the peak for readers of that very descriptor alone: not for the reads above.
        return False

    def remove(self) -> bool:
        """Remove the directories once they are empty, within a second; say whether that came true."""
        end = time.monotonic() + _REMOVAL_S
        removed = [_removed(each, end) for each in self._directories()]
        return all(removed)

    def _limit_cpu(self, quota_us: int | None) -> None:
        at = self._at["cpu"]
        if self.version == "cgroup2":
            kernel.write(at / "cpu.max", f"{_NO_LIMIT if quota_us is None else quota_us} {PERIOD_US}")
        else:
            kernel.write(at / "cpu.cfs_quota_us", str(-1 if quota_us is None else quota_us))

    def _limit_memory(self, memory_bytes: int) -> None:
        at, text = self._at["memory"], str(memory_bytes)
        if self.version == "cgroup2":
            kernel.write(at / "memory.max", text)
            with suppress(OSError):  # a kernel without swap accounting
                kernel.write(at / "memory.swap.max", "0")
            return
        # With swap may not be less than without: the order depends on which way the limit goes.
        swap = at / "memory.memsw.limit_in_bytes"
        for path in (swap, at / "memory.limit_in_bytes", swap):
            if path is swap:
                with suppress(OSError):
                    kernel.write(path, text)
            else:
                kernel.write(path, text)

    def _directories(self) -> list[Path]:
        return list(dict.fromkeys(self._at.values()))


class Site:
    """Where a launcher keeps its groups."""

    def __init__(self, version: Version, bases: Mapping[str, Path], name: str) -> None:
        """Make a directory of that name beneath each base.

        Raises:
            OSError: if they cannot be made, or a controller cannot be had.
        """
        self.version = version
        self._at = {controller: base / name for controller, base in bases.items()}
        for each in dict.fromkeys(self._at.values()):
            each.mkdir(exist_ok=True)
        try:
            if version == "cgroup2":
                self._enable(self._at["memory"])
        except OSError:
            self.remove()
            raise

    def group(self, number: int) -> Group:
        """Make a group.

        Raises:
            OSError
        """
        return Group(self.version, {controller: at / str(number) for controller, at in self._at.items()})

    def remove(self) -> None:
        """Remove the site and empty groups that are left in it."""
        for each in dict.fromkeys(self._at.values()):
            _remove_with_groups(each)

    def _enable(self, at: Path) -> None:
        """Hand the controllers down to the groups; a group with processes of its own may not (cgroups(7))."""
        for directory in (at.parent, at):
            missing = set(_CONTROLLERS) - set(_read(directory / "cgroup.subtree_control").split())
            if missing:
                kernel.write(directory / "cgroup.subtree_control", " ".join(f"+{each}" for each in sorted(missing)))


def find(name: str, wanted: str, beneath: str | None) -> "Site | None":
    """Make the site of a launcher in the version wanted (`auto`: the better one), None where there can be none.

    `beneath` is a directory of the version 2 hierarchy that was delegated to the worker, its own group by default.
    """
    for version in ("cgroup2", "cgroup1"):
        if wanted in ("auto", version):
            bases = _bases_2(beneath) if version == "cgroup2" else _bases_1()
            with suppress(OSError):
                if bases is not None:
                    return _usable(Site(version, bases, name))
    return None


def _usable(site: Site) -> Site:
    """Try all that a keeper will do: a controller may be mounted and yet refuse."""
    try:
        trial = site.group(0)
        try:
            trial.limit(memory_bytes=1 << 30, cpu_share=1.0, processes=10)
            trial.usage()
        finally:
            trial.remove()
    except OSError:
        site.remove()
        raise
    return site


def name_of(worker: int, launcher: int) -> str:
    """Name the site of a worker's launcher; it may have several, one after the other."""
    return f"{_owner(worker)}-{launcher}"


def _owner(worker: int) -> str:
    found = tree.stat(worker)
    return f"{_PREFIX}{worker}-{found.start if found else 0}"


def sweep(beneath: str | None, *, also_of: int | None = None) -> int:
    """Kill what is left in the sites of workers that have ended, and remove these; give how many processes.

    `also_of` is a worker that has no use for its sites any more.
    """
    own = None if also_of is None else _owner(also_of)
    killed = 0
    for bases in (_bases_2(beneath), _bases_1()):
        for base in dict.fromkeys((bases or {}).values()):
            for site in base.glob(f"{_PREFIX}*-*-*"):
                if not _owned(site.name) or site.name.rpartition("-")[0] == own:
                    with suppress(OSError):  # another launcher sweeps it, too, and was faster
                        killed += _kill_within(site)
                        _remove_with_groups(site)
    return killed


def _owned(name: str) -> bool:
    pid, start, _ = name.removeprefix(_PREFIX).split("-", 2)
    if not (pid.isdecimal() and start.isdecimal()):
        return True  # not ours to judge
    found = tree.stat(int(pid))
    return found is not None and found.start == int(start)


def _kill_within(site: Path) -> int:
    seen: set[int] = set()
    end = time.monotonic() + _REMOVAL_S
    while time.monotonic() < end:
        inside = [int(pid) for each in site.glob("*/cgroup.procs") for pid in _read(each, "").split() if pid != "0"]
        if not inside:
            break
        for pid in inside:
            seen.add(pid)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, 9)
        time.sleep(_BUSY_S)
    return len(seen)


def _remove_with_groups(site: Path) -> None:
    end = time.monotonic() + _REMOVAL_S
    for each in site.glob("*/cgroup.procs"):
        _removed(each.parent, end)
    _removed(site, end)


def _removed(directory: Path, end: float) -> bool:
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(_BUSY_S)  # its last process has not quite gone
        else:
            return True


def _bases_2(beneath: str | None) -> dict[str, Path] | None:
    if beneath is not None:
        return dict.fromkeys(_CONTROLLERS, Path(beneath))
    for kind, _, mount in _mounts():
        if kind == "cgroup2":
            own = next((path for number, _, path in _own() if number == "0"), "/")
            base = mount / own.lstrip("/")
            # A group with processes may not hand controllers down, the root may: their parent's other child can.
            return dict.fromkeys(_CONTROLLERS, base if own == "/" else base.parent)
    return None


def _bases_1() -> dict[str, Path] | None:
    own = {controller: path for _, names, path in _own() for controller in names}
    found: dict[str, Path] = {}
    for kind, options, mount in _mounts():
        for each in (*_CONTROLLERS, "cpuacct"):
            if kind == "cgroup" and each in options and each in own:
                inside = mount / own[each].lstrip("/")
                # Of a container that sees its part of the hierarchy as the whole.
                found[each] = inside if inside.is_dir() else mount
    return found if len(found) == len(_CONTROLLERS) + 1 else None


def _mounts() -> Iterator[tuple[str, list[str], Path]]:
    """Give kind, super options and place of every mount, proc_pid_mountinfo(5)."""
    for line in _read(MOUNTS, "").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" "), "", ""][:3]
        yield kind, options.split(","), Path(left.split(" ")[4])


def _own() -> Iterator[tuple[str, list[str], str]]:
    """Give number, controllers and path of every hierarchy, cgroups(7)."""
    for line in _read(OWN, "").splitlines():
        number, controllers, path = line.split(":", 2)
        yield number, controllers.split(","), path


def _field(text: str, name: str) -> int:
    """Give a value of a file of `name value` lines, 0 if it is not there."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read(path: Path, default: str | None = None) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 1 << 20).decode("utf-8", "replace").strip()  # ENODEV: its group was removed meanwhile
        finally:
            os.close(fd)
    except OSError:
        if default is None:
            raise
        return default

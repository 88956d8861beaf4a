"""The cluster that is watched: `gaia up` in a directory of its own, and a worker that can leak."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gaia import Gaia
from gaia.store.connection import connect
from tasks.cli.state import StateDir
from tasks.cli.up import GAIA
from tests.soak import keyspace, leaks, litter, processes
from tests.soak.samples import Quantity, Sample
from tests.soak.scenery import Scenery
from tests.support import cluster
from tests.support.waiting import until

START_S = 90.0
THREADS = 4
"""Calls at once in each worker: few, so that every pool is full soon."""

SMALL = {
    "GAIA_WORKER__CONCURRENCY": str(THREADS),
    "GAIA_API__POOL_CONNECTIONS": "8",
    "GAIA_NETWORK__CACHE_ENTRIES": "20",
    "GAIA_PROCESS__REMEMBER_S": "30",
    "GAIA_LIMITS__FAILURE_THRESHOLD": "1000000",
}
"""Caches that are full soon, and no circuit that opens: what grows afterwards grows for good."""

_LIVE = re.compile(r'^gaia_browser_live\{kind="(\w+)"\} (\S+)$', re.MULTILINE)


class Field:
    """The running cluster."""

    def __init__(self, scenery: Scenery, url: str, leaking: "subprocess.Popen[bytes]", up: int) -> None:
        self.scenery = scenery
        self.directory = scenery.directory
        self.url = url
        self.gaia = Gaia(url)
        self._client = connect(url)
        self._leaking = leaking
        self._up = up
        self.members = self._find()

    def close(self) -> None:
        # The children that it lost outlive it otherwise.
        for each in processes.below(processes.table(), self._leaking.pid):
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        self.gaia.close()
        self._client.close()

    def _find(self) -> dict[str, int]:
        """Give the processes of the cluster by what they are."""
        found = {"up": self._up, leaks.QUEUE: self._leaking.pid}
        for each in processes.below(processes.table(), self._up):
            words = processes.command(each.pid)
            if "tasks.cli.main" in words:
                _, _, what = " ".join(words).partition("tasks.cli.main ")
                name = what.split()[1] if what.startswith("worker ") else what.split()[0]
                found.setdefault("supervisor" if name == "up" else name, each.pid)
            elif words and "server" in Path(words[0]).name:
                found.setdefault("redis", each.pid)
        return found

    def same(self) -> bool:
        """Say whether every process is still the one it was: a new one would have leaked nothing yet."""
        return self._find() == self.members

    def end_lives(self) -> None:
        """See `keyspace.end_lives`."""
        keyspace.end_lives(self._client)

    def kill_browsers(self) -> int:
        """Kill what lives below the browser worker; say how many processes that were."""
        found = processes.below(processes.table(), self.members["browser"])
        for each in found:
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        return len(found)

    def look(self, calls: Mapping[str, int], *, all_of_it: bool) -> Sample:
        """Count: of the processes alone under load, of keys and files, too, at rest."""
        values = self._of_processes()
        if all_of_it:
            values |= keyspace.look(self._client) | keyspace.server(self._client) | litter.look(self.directory)
            values |= self._of_browsers()
        return Sample(dict(calls), values)

    def _of_browsers(self) -> dict[Quantity, float]:
        """Count sessions and tabs: what the worker says there are, and the processes that Chromium has for pages."""
        endpoint = next(each.endpoint for each in self.gaia.nodes() if each.name.startswith("browser@"))
        page = cluster.get(f"{endpoint}/metrics")[1]
        found = {f"live: {kind}": float(count) for kind, count in _LIVE.findall(page) if kind != "memory_bytes"}
        below = processes.below(processes.table(), self.members["browser"])
        renderers = sum("--type=renderer" in " ".join(processes.command(each.pid)) for each in below)
        values = {**found, "below it: renderers": float(renderers)}
        return {Quantity("browser", name): value for name, value in values.items()}

    def _of_processes(self) -> dict[Quantity, float]:
        table, kinds = processes.table(), processes.socket_kinds()
        values: dict[Quantity, float] = {}
        for owner, pid in self.members.items():
            if pid not in table:
                raise AssertionError(f"{owner}, process {pid}, has gone")
            below = processes.below(table, pid, self.members.values())
            found: Counter[str] = processes.descriptors(pid, kinds)
            found["threads"] = table[pid].threads
            found["resident, bytes"] = table[pid].resident_bytes
            found["private, bytes"] = processes.private_bytes(pid)
            found["children"] = sum(each.state != "Z" for each in below)
            found["zombies"] = sum(each.state == "Z" for each in below)
            found["below it: threads"] = sum(each.threads for each in below)
            found["below it: descriptors"] = sum(processes.descriptors(each.pid, {})["descriptors"] for each in below)
            found["below it: resident, bytes"] = sum(each.resident_bytes for each in below)
            values |= {Quantity(owner, name): float(count) for name, count in found.items()}
        return values


@contextmanager
def running(scenery: Scenery) -> Iterator[Field]:
    """Start everything; stop it at the end."""
    directory = scenery.directory
    temporary = directory / "tmp"
    temporary.mkdir(mode=0o711)
    temporary.chmod(0o711)
    environ = {**cluster.clean_environ(), **SMALL, **scenery.settings(), "TMPDIR": str(temporary)}
    state = StateDir(directory / "state")
    # They die with this process, however it ends.
    tied = cluster.tied()
    up = [*tied, *GAIA, "up", "--state-dir", str(state.path)]
    with ExitStack() as stack:
        log = stack.enter_context((directory / "cluster.log").open("wb"))
        command = [*up, "--no-flower", "--monitor-port", "0"]
        started = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
        stack.callback(cluster.stop, started, 60)
        until(lambda: started.poll() is not None or state.announced(), START_S, what="the cluster")
        url = state.announced().get("GAIA_REDIS_URL")
        assert url, (directory / "cluster.log").read_text(errors="replace")
        leaking = cluster.executed(
            [*tied, sys.executable, "-m", "tests.soak.leaking_worker"],
            {**environ, "GAIA_REDIS_URL": url},
            directory / "leaking.log",
        )
        stack.callback(cluster.stop, leaking.process)
        leaking.wait_ready()
        field = Field(scenery, url, leaking.process, started.pid)
        # They end at the same time; without the test worker's calls nothing holds it up.
        stack.callback(started.terminate)
        stack.callback(leaking.process.terminate)
        stack.callback(field.close)
        yield field

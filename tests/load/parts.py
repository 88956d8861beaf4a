"""The five parts of the mix: what is asked, what a right answer is, and the same work without queue and worker."""

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import requests

from gaia import Gaia, api, browser, files, network, process
from gaia.contracts.base import Call
from tasks.browser.service import BrowserService
from tasks.scope import Scope
from tests.support.dns import NameServer
from tests.support.web import Asked, Site, reply

MIX = {"browser": 100, "process": 50, "api": 400, "network": 200, "files": 250}
"""The thousand operations, in the order in which they are submitted: what takes longest first."""

BARE_THREADS = {"browser": 4, "process": 4, "api": 10, "network": 10, "files": 1}
"""Threads of the bare work: as many as the worker has, one for files, whose calls hardly wait."""

PAGE = b"""<!doctype html><title>Load</title><h1>A page</h1><p id=said></p>
<script>
const said = "page " + location.search.slice(1) + " says " + 6 * 7
document.getElementById("said").textContent = document.title = said</script>
"""


@dataclass(frozen=True)
class World:
    """What the operations are about: servers on loopback, a directory, a program."""

    site: Site
    names: NameServer
    folder: Path
    browser: BrowserService
    """For the work without a worker."""
    tabs: dict[str, list[str]] = field(default_factory=dict)
    """Sessions of browsers by whose they are, for pages that are loaded in tabs that stay; none: each has its own."""

    def serve(self) -> None:
        """Say what the site says, and write the files that will be read."""
        self.site.routes["/json"] = _counted
        self.site.routes["/page"] = reply(PAGE, 200, "Content-Type: text/html")
        (self.folder / "ready").mkdir(parents=True, exist_ok=True)
        for number in range(MIX["files"]):
            self.ready(number).write_bytes(_body(number))

    def environ(self) -> dict[str, str]:
        """Give the settings of workers that may do all this and nothing else."""
        return {
            "GAIA_EGRESS__ALLOW_CIDRS": json.dumps(["127.0.0.1/32"]),
            "GAIA_FILES__ROOTS": json.dumps({"data": str(self.folder)}),
            "GAIA_PROCESS__EXECUTABLES": json.dumps([program()]),
            "GAIA_NETWORK__NAMESERVERS": json.dumps([self.names.address]),
            "GAIA_NETWORK__PROBE_PORTS": json.dumps([str(self.site.port)]),
        }

    def ready(self, number: int) -> Path:
        """Give the path of a file that is there to be read."""
        return self.folder / "ready" / str(number)


@dataclass(frozen=True)
class Operation:
    """One of the thousand: the call, whether a result is the right one, and the same without a queue."""

    call: Call[Any]
    is_right: Callable[[Any], bool]
    bare: Callable[[], bool]


def shared(share: float) -> dict[str, int]:
    """Give a part of the mix, at least one of each."""
    return {part: max(1, round(count * share)) for part, count in MIX.items()}


def program() -> str:
    """Give the path of the program that is run."""
    found = shutil.which("cat")
    assert found is not None
    return found


def operations(part: str, world: World, run: str, count: int) -> list[Operation]:
    """Give so many operations of a part; names of files and hosts hold the run's, so that no cache knows them."""
    make = {"browser": _page, "process": _program, "api": _request, "network": _network, "files": _file}[part]
    return [make(world, run, number) for number in range(count)]


def bare(part: str, given: Iterable[Operation]) -> int:
    """Do the work of a part without queue and worker; give how many were right."""
    with ThreadPoolExecutor(BARE_THREADS[part]) as pool:
        return sum(pool.map(lambda each: each.bare(), given))


def _counted(asked: Asked, _: socket.socket) -> bytes:
    number = asked.target.partition("=")[2]
    return reply(json.dumps({"n": int(number)}).encode(), 200, "Content-Type: application/json")


def _body(number: int) -> bytes:
    return f"{number:08}".encode() * 128


# --- each part

_of_thread = threading.local()


def _request(world: World, run: str, number: int) -> Operation:
    del run
    url = world.site.url(f"/json?n={number}")

    def by_requests() -> bool:
        session: requests.Session | None = getattr(_of_thread, "session", None)
        if session is None:
            session = _of_thread.session = requests.Session()
        found = session.get(url, timeout=30)
        return found.status_code == 200 and found.json() == {"n": number}

    return Operation(
        api.Request(url=url), lambda found: found.status == 200 and found.json() == {"n": number}, by_requests
    )


def _file(world: World, run: str, number: int) -> Operation:
    """Write every second one, read the others."""
    body = _body(number)
    if number % 2:
        ready = world.ready(number)
        return Operation(
            files.Read(f"data:ready/{number}"),
            lambda found: bool(found.body == body),
            lambda: ready.read_bytes() == body,
        )
    path = world.folder / run / str(number)

    def by_hand() -> bool:
        path.parent.mkdir(exist_ok=True)
        with path.with_suffix(".draft").open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".draft").rename(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return path.read_bytes() == body

    return Operation(
        files.Write(f"data:{run}/{number}", body),
        lambda found: found.size_bytes == len(body) and path.read_bytes() == body,
        by_hand,
    )


def _network(world: World, run: str, number: int) -> Operation:
    """Resolve every second one, probe a port for the others."""
    if number % 2:
        address = ("127.0.0.1", world.site.port)

        def connected() -> bool:
            with socket.create_connection(address, 10):
                return True

        return Operation(network.ProbeTcp(*address), lambda found: bool(found.address == "127.0.0.1"), connected)
    name, expected = f"n{number}.{run}.test", f"192.0.2.{number % 250 + 1}"
    world.names.add(f"{name}. 60 IN A {expected}")
    host, port = world.names.address.split(":")

    def asked() -> bool:
        found = dns.query.udp(dns.message.make_query(name, "A"), host, 10, int(port))
        return expected in found.answer[0].to_text()

    return Operation(network.Resolve(name), lambda found: found.addresses == (expected,), asked)


def _program(world: World, run: str, number: int) -> Operation:
    del world
    argv, said = (program(),), f"{run} {number}".encode()

    def by_subprocess() -> bool:
        return subprocess.run(argv, input=said, stdout=subprocess.PIPE, check=True).stdout == said

    return Operation(
        process.Run(argv, stdin=said), lambda found: found.exit_code == 0 and found.stdout == said, by_subprocess
    )


def _page(world: World, run: str, number: int) -> Operation:
    """Load a page in a tab that its tenant used before and take its text, or in an open one and take its title."""
    word = f"{run}-{number}"
    url, said = world.site.url(f"/page?{word}"), f"page {word} says 42"
    if not world.tabs:
        call = browser.Capture(url=url, formats=("text",), isolation="reuse", timeout_s=60)

        def has_text(found: browser.Captured) -> bool:
            return found.status == 200 and said in (found.text or "")

        return Operation(call, has_text, lambda: has_text(world.browser.capture(call, _bounds())))
    queued, own = (
        browser.Navigate(tabs[number % len(tabs)], url, timeout_s=60) for tabs in (world.tabs[QUEUED], world.tabs[BARE])
    )

    def has_title(found: browser.Navigated) -> bool:
        return found.status == 200 and found.title == said

    return Operation(queued, has_title, lambda: has_title(world.browser.navigate(own, _bounds())))


def _bounds() -> Scope:
    return Scope.lasting(60, operation="browser.bare")


QUEUED, BARE = "queued", "bare"
TABS = 4


def open_tabs(gaia: Gaia, world: World) -> None:
    """Open a session for each call that a worker runs at once, and as many without a worker, if there are none yet."""
    if BARE not in world.tabs:
        world.tabs[BARE] = [world.browser.open(browser.Open(idle_s=3600), _bounds()).id for _ in range(TABS)]
    if QUEUED not in world.tabs:
        pending = [gaia.submit(browser.Open(idle_s=3600)) for _ in range(TABS)]
        world.tabs[QUEUED] = [each.get(timeout=60).id for each in pending]

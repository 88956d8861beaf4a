"""The work of the demo: what is asked of each subsystem, and what a right answer looks like."""

import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gaia.contracts import api, browser, files, network, process
from gaia.contracts.base import Call
from tasks.cli.site import PAGES, Site

_PROGRAMS: Final = ("cat", "false", "uname")
_WINDOWS: Final = ((1280, 720), (1920, 1080), (820, 1180), (390, 844))


class Wrong(Exception):  # noqa: N818 - it says what it is
    """An answer that is not the right one."""


@dataclass(frozen=True)
class Seen:
    """What came back, in a word, and how many bytes of it."""

    note: str
    size_bytes: int = 0


@dataclass(frozen=True)
class Job:
    """A call, and the look at its result: it gives what was seen, or raises `Wrong`."""

    call: Call[Any]
    look: Callable[[Any], Seen]


Batches = Sequence[Sequence[Job]]
"""The jobs of one batch run side by side, the batches one after the other."""


def programs() -> list[str]:
    """Give the paths of the programs that the work runs."""
    return [found for name in _PROGRAMS if (found := shutil.which(name))]


def workload(site: Site, pictures: Path) -> dict[str, Batches]:
    """Give the batches of every subsystem."""
    return {
        "api": [_requests(site)],
        "files": _files(),
        "process": [_runs()],
        "network": [[Job(network.Resolve("localhost"), _addresses)] * 10],
        "browser": [[_capture(site, pictures, *size) for size in _WINDOWS]],
    }


def _requests(site: Site) -> list[Job]:
    def job(path: str) -> Job:
        status, _, text = PAGES[path]

        def look(reply: api.Response) -> Seen:
            if (reply.status, reply.text()) != (status, text):
                raise Wrong(f"{path} answered {reply.status} with {len(reply.body)} bytes")
            return Seen(f"status {reply.status}", len(reply.body))

        return Job(api.Request(url=site.url(path)), look)

    counts = {"/json": 20, "/page": 10, "/missing": 6, "/slow": 4}
    return [job(path) for path, count in counts.items() for _ in range(count)]


def _files() -> Batches:
    bodies = {f"data:demo/{number:02}.bin": os.urandom(random.randrange(100, 20_000)) for number in range(20)}  # noqa: S311 - sizes are no secret

    def written(reply: files.Written) -> Seen:
        if reply.size_bytes != len(bodies[reply.path]):
            raise Wrong(f"{reply.path} has {reply.size_bytes} bytes")
        return Seen("written", reply.size_bytes)

    def same(reply: files.Content) -> Seen:
        if reply.body != bodies[reply.path]:
            raise Wrong(f"{reply.path} holds other bytes than were written")
        return Seen("the same bytes", reply.size_bytes)

    writes = [Job(files.Write(path, body), written) for path, body in bodies.items()]
    return [writes, [Job(files.Read(path), same) for path in bodies], _beyond_reading(set(bodies))]


def _beyond_reading(paths: set[str]) -> list[Job]:
    """Look at all the files in one walk, pack them, and run many steps in one message."""

    def walked(reply: files.Walked) -> Seen:
        if set(reply.paths) != paths:
            raise Wrong(f"{len(reply.paths)} paths were found")
        return Seen(f"{len(reply.paths)} paths")

    def packed(reply: files.Packed) -> Seen:
        if reply.entries != len(paths):
            raise Wrong(f"{reply.path} holds {reply.entries} files")
        return Seen(f"{reply.entries} files packed", reply.size_bytes)

    def done(reply: files.Batched) -> Seen:
        outcomes = reply.outcomes()
        if not all(each is not None and each.ok for each in outcomes):
            raise Wrong(f"{reply.failed} steps failed")
        return Seen(f"{len(outcomes)} steps")

    return [
        Job(files.Walk("data:demo"), walked),
        Job(files.Pack("data:demo", "data:demo.tar.zst", "tar.zst"), packed),
        Job(files.Batch.of(*(files.Checksum(path, "crc32c") for path in sorted(paths))), done),
    ]


def _runs() -> list[Job]:
    paths = dict(zip(_PROGRAMS, programs(), strict=True))

    def job(argv: tuple[str, ...], code: int, stdin: bytes = b"") -> Job:
        def look(reply: process.Exited) -> Seen:
            if reply.exit_code != code or not reply.stdout.startswith(stdin):
                raise Wrong(f"{argv[0]} ended with {reply.exit_code} ({reply.reason})")
            return Seen(f"exit code {reply.exit_code}", len(reply.stdout))

        return Job(process.Run(argv=argv, stdin=stdin), look)

    return [
        *[job((paths["uname"], "-a"), 0)] * 4,
        *[job((paths["cat"],), 0, b"from stdin to stdout\n")] * 4,
        *[job((paths["false"],), 1)] * 2,
    ]


def _addresses(reply: network.Resolved) -> Seen:
    if not reply.addresses:
        raise Wrong(f"{reply.name} has no address")
    return Seen(", ".join(reply.addresses))


def _capture(site: Site, pictures: Path, width: int, height: int) -> Job:
    path = pictures / f"page-{width}x{height}.png"

    def look(reply: browser.Captured) -> Seen:
        png = reply.png or b""
        # A PNG begins with its signature, then IHDR: length, name, width, height (PNG, sections 5.2 and 11.2.1).
        if png[:24] != struct.pack(">8sI4sII", b"\x89PNG\r\n\x1a\n", 13, b"IHDR", width, height):
            raise Wrong(f"{reply.url} gave {len(png)} bytes that are no PNG of {width}x{height}")
        if "Scripts run: 42" not in (reply.text or ""):
            raise Wrong(f"{reply.url} has the text {reply.text!r}")
        path.write_bytes(png)
        return Seen(f"PNG {path}", len(png))

    call = browser.Capture(url=site.url("/page"), formats=("png", "text"), viewport=browser.Viewport(width, height))
    return Job(call, look)

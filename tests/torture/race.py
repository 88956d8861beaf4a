"""A directory is swapped for a link that leads outside, as fast as a process can, while calls run through it."""

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gaia.contracts import files
from gaia.errors import GaiaError
from tasks.files.service import FilesService
from tasks.roots import openat2, walk
from tasks.roots.roots import Roots
from tasks.scope import Scope

SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
place, link = (each.encode() for each in sys.argv[1:])
print("ready", flush=True)
while True:
    # renameat2(2) with RENAME_EXCHANGE: at no instant is there neither.
    libc.renameat2(-100, place, -100, link, 2)
"""

WAYS = {"openat2": openat2.open_beneath, "walk": walk.open_beneath}


@dataclass
class Raced:
    """What became of the calls: how many there were of each outcome, and what was found outside."""

    calls: int = 0
    took_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    escapes: list[str] = field(default_factory=list)


def run(directory: Path, *, calls: int, way: str = "openat2") -> Raced:
    """Run so many calls through the swapped name; an escape is a secret read or a thing changed outside."""
    root, outside = directory / "root", directory / "outside"
    (root / "place").mkdir(parents=True)
    (root / "place" / "f").write_bytes(b"inside")
    outside.mkdir()
    (outside / "f").write_bytes(b"secret")
    (root / "link").symlink_to("../outside")
    roots = Roots({"data": root}, open_beneath=WAYS[way])
    service, scope = FilesService(roots=roots), Scope.lasting(3600)
    service.pack(files.Pack("data:place", "data:x.tar", "tar", durable=False), scope)
    before = outside.stat().st_mtime_ns
    argv = [sys.executable, "-c", SWAPPER, str(root / "place"), str(root / "link")]
    found = Raced()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"ready\n"
        begun = time.monotonic()
        try:
            while found.calls < calls:
                _round(service, scope, found)
                if outside.stat().st_mtime_ns != before or len(list(outside.iterdir())) != 1:
                    found.escapes.append(f"changed outside before call {found.calls}")
                    break
        finally:
            swapper.kill()
        found.took_s = time.monotonic() - begun
    roots.close()
    if (outside / "f").read_bytes() != b"secret":
        found.escapes.append("the file outside was written to")
    return found


def _round(service: FilesService, scope: Scope, found: Raced) -> None:
    number = found.calls
    for call in _calls(number):
        found.calls += 1
        try:
            result = getattr(service, call.OPERATION.partition(".")[2])(call, scope)
        except GaiaError as error:
            found.outcomes[f"{type(error).__name__}"] += 1
            continue
        found.outcomes["ok"] += 1
        if b"secret" in getattr(result, "body", b""):
            found.escapes.append(f"{call!r} read what is outside")
        if any("secret" in str(each) for each in getattr(result, "items", ())):
            found.escapes.append(f"{call!r} parsed what is outside")


def _calls(number: int) -> list[Any]:
    """Give one call of each kind that goes through the name. The names are few, so that little lies there."""
    name = f"n{number % 7}"
    return [
        files.Read("data:place/f"),
        files.Write("data:place/new", b"body", durable=False),
        files.Write(f"data:place/deep/{name}", b"body", durable=False),
        files.Read("data:place/new"),
        files.Append("data:place/log", b"", durable=False),
        files.Stat("data:place/f"),
        files.List("data:place"),
        files.Walk("data:", kind="any"),
        files.Copy("data:place/f", "data:place/copied", durable=False),
        files.Move("data:place/copied", f"data:place/{name}", durable=False),
        files.MakeDir(f"data:place/made/{name}", durable=False),
        files.Delete("data:place/made", recursive=True, missing_ok=True, durable=False),
        files.ReadRange("data:place/f"),
        files.Tail("data:place/f"),
        files.Checksum("data:place/f", "crc32c"),
        files.ParseCsv("data:place/f", first_row_names=False),
        files.Stream(path="data:place/f", target="data:place/streamed", durable=False),
        files.Pack("data:place", "data:packed.tar", "tar", durable=False),
        files.Unpack("data:x.tar", f"data:place/un{name}", durable=False),
        files.Delete(f"data:place/un{name}", recursive=True, missing_ok=True, durable=False),
    ]

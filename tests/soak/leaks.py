"""An operation that leaks, each call once, what it is told to: the gate must see it."""

import os
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from typing import Any, Literal

from config.settings import load
from gaia.contracts.base import Call, Result, contract
from gaia.store.connection import connect
from tasks.runtime.services import once
from tasks.scope import Scope
from tasks.wiring import handles
from tests.soak.load import Ask, Scene

QUEUE = "leak"
KEY = "soak:leaked:"
FILE = "soak-leaked-"
MEMORY_BYTES = 4 * 1024 * 1024

Kind = Literal["nothing", "memory", "descriptor", "thread", "child", "zombie", "socket", "key", "file"]


@contract
class Leaked(Result):
    """It is lost."""


@contract
class Leak(Call[Leaked], operation="leak.once"):
    """Lose one of a kind."""

    kind: Kind = "nothing"


_kept: list[Any] = []
redis_client = once(lambda: connect(load().redis_url))


def _thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def _file() -> None:
    descriptor, _ = tempfile.mkstemp(prefix=FILE)
    os.close(descriptor)


LEAKS: dict[Kind, Callable[[], object]] = {
    "nothing": lambda: redis_client().ping(),
    "memory": lambda: _kept.append(os.urandom(1) * MEMORY_BYTES),
    "descriptor": lambda: os.open("/dev/null", os.O_RDONLY),
    "thread": _thread,
    "child": lambda: _kept.append(subprocess.Popen(["/bin/sleep", "1000"])),
    # Nobody waits for it: Popen would, when the next one starts.
    "zombie": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "socket": lambda: _kept.append(socket.socketpair()),
    "key": lambda: redis_client().set(f"{KEY}{secrets.token_hex(8)}", "x"),
    "file": _file,
}


@handles(Leak)
def leak(call: Leak, scope: Scope) -> Leaked:
    LEAKS[call.kind]()
    return Leaked()


def deck(kinds: tuple[Kind, ...] = ("nothing",)) -> list[Scene]:
    """Give the scenes of the worker's queue."""

    def scene_of(kind: Kind) -> Scene:
        def scene(ask: Ask) -> None:
            ask.result(Leak(kind))

        scene.__name__ = kind
        return scene

    return [scene_of(each) for each in kinds]

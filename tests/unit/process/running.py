"""Short ways to run a program, and the types of the fixtures beside."""

import sys
from collections.abc import Callable
from typing import Any

import psutil

from gaia.contracts import process
from tasks.process.service import ProcessService
from tasks.scope import Scope

Bearers = Callable[[], list[psutil.Process]]
MakeService = Callable[..., ProcessService]
WaitUntil = Callable[[Callable[[], object]], None]


def run(service: ProcessService, *argv: str, scope: Scope | None = None, **fields: Any) -> process.Exited:
    call = process.Run(argv=argv, **fields)
    return service.run(call, scope or Scope.lasting(60))


def shell(service: ProcessService, script: str, **fields: Any) -> process.Exited:
    return run(service, "/bin/sh", "-c", script, **fields)


def python(service: ProcessService, code: str, **fields: Any) -> process.Exited:
    return run(service, sys.executable, "-c", code, **fields)

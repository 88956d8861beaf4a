"""The `process` queue's door: contracts to service methods."""

from config.settings import load
from gaia.contracts import process
from tasks.process.service import ProcessService
from tasks.roots.roots import Roots
from tasks.scope import Scope
from tasks.wiring import handles, once


@once
def service() -> ProcessService:
    """Build the service of this process."""
    settings = load()
    return ProcessService(settings=settings.process, roots=Roots.from_settings(settings.files))


@handles(process.Run)
def run(call: process.Run, scope: Scope) -> process.Exited:
    """Run a program to its end."""
    return service().run(call, scope)

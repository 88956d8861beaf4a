"""The `files` queue's door: contracts to service methods."""

from config.settings import load
from gaia.contracts import files
from tasks.files.service import FilesService
from tasks.roots.roots import Roots
from tasks.scope import Scope
from tasks.wiring import handles, once


@once
def service() -> FilesService:
    """Build the service of this process."""
    return FilesService(roots=Roots.from_settings(load().files))


@handles(files.Write)
def write(call: files.Write, scope: Scope) -> files.Written:
    """Put a file in place, whole or not at all."""
    return service().write(call, scope)


@handles(files.Read)
def read(call: files.Read, scope: Scope) -> files.Content:
    """Read a whole file."""
    return service().read(call, scope)

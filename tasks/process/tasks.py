"""The `process` queue's door: contracts to service methods."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaia.contracts import process
from tasks.runtime.services import assembled
from tasks.scope import Scope
from tasks.wiring import handles

if TYPE_CHECKING:
    from tasks.process.service import ProcessService

service: "Callable[[], ProcessService]" = assembled("tasks.process.assembly")


@handles(process.Run)
def run(call: process.Run, scope: Scope) -> process.Exited:
    """Run a program to its end."""
    return service().run(call, scope)


@handles(process.Start)
def start(call: process.Start, scope: Scope) -> process.Started:
    """Start a program that outlives the call."""
    return service().start(call, scope)


@handles(process.Status)
def status(call: process.Status, scope: Scope) -> process.State:
    """Tell how a started program is."""
    return service().status(call, scope)


@handles(process.Wait)
def wait(call: process.Wait, scope: Scope) -> process.State:
    """Wait for the end of a started program."""
    return service().wait(call, scope)


@handles(process.Write)
def write(call: process.Write, scope: Scope) -> process.Accepted:
    """Write to a started program's stdin."""
    return service().write(call, scope)


@handles(process.Output)
def output(call: process.Output, scope: Scope) -> process.Chunk:
    """Give output of a started program."""
    return service().output(call, scope)


@handles(process.Signal)
def signal(call: process.Signal, scope: Scope) -> process.State:
    """Send a signal to a started program."""
    return service().signal(call, scope)


@handles(process.Terminate)
def terminate(call: process.Terminate, scope: Scope) -> process.State:
    """Stop a started program, in order first."""
    return service().terminate(call, scope)


@handles(process.Kill)
def kill(call: process.Kill, scope: Scope) -> process.State:
    """Kill a started program."""
    return service().kill(call, scope)


@handles(process.List)
def list(call: process.List, scope: Scope) -> process.Listed:  # noqa: A001 - named as the operation
    """List the started programs of the cluster."""
    return service().list(call, scope)


@handles(process.Cleanup)
def cleanup(call: process.Cleanup, scope: Scope) -> process.Cleaned:
    """Forget what has ended, and clear away after lost workers."""
    return service().cleanup(call, scope)


@handles(process.Stats)
def stats(call: process.Stats, scope: Scope) -> process.ProcessStats:
    """Give the worker's counters."""
    return service().stats(call, scope)


@handles(process.Health)
def health(call: process.Health, scope: Scope) -> process.ProcessHealth:
    """Say how the worker is."""
    return service().health(call, scope)

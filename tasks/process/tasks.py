"""The `process` queue's door: contracts to service methods."""

from typing import Final

from config.settings import load
from gaia import wire
from gaia.contracts import process
from gaia.store import keys
from gaia.store.connection import connect
from gaia.store.nodes import REPLY_TIMEOUT_S
from tasks.artifacts import keeping
from tasks.limits import cluster
from tasks.process.quotas import Quotas
from tasks.process.registry import Registry
from tasks.process.service import ProcessService
from tasks.roots.roots import Roots
from tasks.runtime import identity
from tasks.runtime.entrusted import Entrusted
from tasks.runtime.services import once
from tasks.scope import Scope
from tasks.wiring import handles

LASTING_S: Final = 60
"""Bodies outlive the results that name them, and calls that a worker answers at its end, that end."""


@once
def service() -> ProcessService:
    """Build the service of this process."""
    settings = load()
    results_url = settings.result_url or settings.redis_url
    broker = connect(settings.redis_url, reply_timeout_s=REPLY_TIMEOUT_S, retries=0)
    results = connect(results_url, reply_timeout_s=REPLY_TIMEOUT_S, retries=0)
    bodies = keeping.of(settings)
    return ProcessService(
        settings=settings.process,
        roots=Roots.from_settings(settings.files),
        own=identity.own,
        registry=Registry(connect(settings.redis_url), settings.redis_url),
        quotas=Quotas(cluster.limits()),
        entrusted=Entrusted(
            broker,
            results,
            bodies.store(results, keep_s=wire.RESULT_TTL_S + LASTING_S),
            bodies.store(results, keep_s=keys.KEY_TTL_S + LASTING_S),
            keep_s=settings.worker.grace_s + LASTING_S,
        ),
    )


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

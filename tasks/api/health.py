"""What a worker of the `api` queue says of itself."""

from typing import Final

from gaia.contracts import api
from tasks import metrics
from tasks.api.connections import Connections
from tasks.api.engine import Engine
from tasks.api.tally import Tally

COUNTERS: Final = (
    "requests",
    "succeeded",
    "failed",
    "limited",
    "retried",
    "resumed",
    "redirected",
    "received_bytes",
)


def stats(worker: str, tally: Tally, connections: Connections, engine: Engine) -> api.ApiStats:
    """Give every counter and gauge."""
    busy, idle = connections.counts()
    return api.ApiStats(
        worker=worker,
        **{name: tally.counts[name] for name in COUNTERS},
        statuses=dict(tally.statuses),
        errors=dict(tally.errors),
        seconds=tally.quantiles(),
        active=tally.active,
        peak_active=tally.peak_active,
        connections=busy,
        idle_connections=idle,
        bulk_active=engine.active,
        bulk_waiting=engine.waiting,
    )


def report(worker: str, connections: Connections, engine: Engine) -> api.ApiHealth:
    """Say whether the worker can send, and what keeps it from sending all it is asked to."""
    known = metrics.by_label(metrics.CIRCUITS, "state")
    circuits = {state: int(known.get(state, 0)) for state in ("closed", "open", "half_open")}
    findings = []
    if circuits["open"] or circuits["half_open"]:
        findings.append(f"{circuits['open']} circuits are open, {circuits['half_open']} half-open")
    if engine.waiting:
        findings.append(f"{engine.waiting} bulk requests wait for a connection")
    if connections.full():
        findings.append("all sessions of an origin are busy")
    if not engine.alive():
        return api.ApiHealth(worker, "unhealthy", ("the bulk engine has ended", *findings), circuits)
    return api.ApiHealth(worker, "degraded" if findings else "healthy", tuple(findings), circuits)

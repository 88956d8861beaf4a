"""The `network` queue's door: contracts to service methods."""

from config.settings import load
from gaia.contracts import network
from tasks.egress.gateway import Gateway
from tasks.network.service import NetworkService
from tasks.scope import Scope
from tasks.wiring import handles, once


@once
def service() -> NetworkService:
    """Build the service of this process."""
    return NetworkService(resolver=Gateway.shared(load()).resolver)


@handles(network.Resolve)
def resolve(call: network.Resolve, scope: Scope) -> network.Resolved:
    """Look a name up."""
    return service().resolve(call, scope)

"""The `network` queue's door: contracts to service methods."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaia.contracts import network
from tasks.runtime.services import assembled
from tasks.scope import Scope
from tasks.wiring import handles

if TYPE_CHECKING:
    from tasks.network.service import NetworkService

service: "Callable[[], NetworkService]" = assembled("tasks.network.assembly")


@handles(network.Resolve)
def resolve(call: network.Resolve, scope: Scope) -> network.Resolved:
    """Look a name up."""
    return service().resolve(call, scope)


@handles(network.ResolveMany)
def resolve_many(call: network.ResolveMany, scope: Scope) -> network.Resolutions:
    """Look many names up at once."""
    return service().resolve_many(call, scope)


@handles(network.FlushDns)
def flush_dns(call: network.FlushDns, scope: Scope) -> network.Flushed:
    """Forget every answer of name servers."""
    return service().flush_dns(call, scope)


@handles(network.Throttle)
def throttle(call: network.Throttle, scope: Scope) -> network.Throttled:
    """Wait until so many bytes may have moved."""
    return service().throttle(call, scope)


@handles(network.AcquireConnection)
def acquire_connection(call: network.AcquireConnection, scope: Scope) -> network.Connection:
    """Take a slot for a connection."""
    return service().acquire_connection(call, scope)


@handles(network.ReleaseConnection)
def release_connection(call: network.ReleaseConnection, scope: Scope) -> network.Released:
    """Give a connection's slot back."""
    return service().release_connection(call, scope)


@handles(network.ProbeTcp)
def probe_tcp(call: network.ProbeTcp, scope: Scope) -> network.TcpProbed:
    """Connect to a port."""
    return service().probe_tcp(call, scope)


@handles(network.ProbeTls)
def probe_tls(call: network.ProbeTls, scope: Scope) -> network.TlsProbed:
    """Make a TLS handshake."""
    return service().probe_tls(call, scope)


@handles(network.ProbeHttp)
def probe_http(call: network.ProbeHttp, scope: Scope) -> network.HttpProbed:
    """Send a request and time its phases."""
    return service().probe_http(call, scope)


@handles(network.Ping)
def ping(call: network.Ping, scope: Scope) -> network.Pinged:
    """See whether a host is there."""
    return service().ping(call, scope)


@handles(network.Stats)
def stats(call: network.Stats, scope: Scope) -> network.NetworkStats:
    """Tell how look-ups went."""
    return service().stats(call, scope)


@handles(network.Health)
def health(call: network.Health, scope: Scope) -> network.NetworkHealth:
    """Tell whether names can be resolved."""
    return service().health(call, scope)

"""Is a host there: by ICMP, or by connecting where ICMP is not permitted or not answered."""

import time
from collections.abc import Sequence
from contextlib import suppress

from gaia.contracts import network
from gaia.errors import ConnectFailed, TimedOut
from tasks.egress.gateway import Gateway
from tasks.network import echo
from tasks.network.dialling import Dialler, Ports
from tasks.scope import Scope

ICMP_PORT = 0
"""What the judge is asked for: an entry of `ALLOW_CIDRS` with a port does not open ICMP."""


class Pinger:
    """Thread-safe; holds nothing."""

    def __init__(self, gateway: Gateway, dialler: Dialler, ports: Ports) -> None:
        """Reach hosts through a gateway."""
        self._gateway = gateway
        self._dialler = dialler
        self._ports = ports

    def ping(self, call: network.Ping, scope: Scope) -> network.Pinged:
        """Send echo requests for half of the time; without any answer connect for the rest of it.

        Raises:
            EgressDenied: the address may not be reached, or the port not be probed.
            NameNotFound, ResolverFailed: as they say.
        """
        ends_at = time.monotonic() + scope.bound_s(call.timeout_s)
        address = self._gateway.addresses(call.host, ICMP_PORT, timeout_s=scope.bound_s(call.timeout_s))[0]
        trips: list[float] = []
        with suppress(OSError):
            trips = echo.ping(scope, address, call.count, max(0.001, (ends_at - time.monotonic()) / 2))
        if trips:
            return _told(call, address, "icmp", call.count, trips)
        self._ports.require(call.host, call.port)
        trips = []
        sent = 0
        while sent < call.count and time.monotonic() < ends_at:
            sent += 1
            took_s = self._connect(call, scope, ends_at)
            if took_s is not None:
                trips.append(took_s)
        return _told(call, address, "tcp", sent, trips)

    def _connect(self, call: network.Ping, scope: Scope, ends_at: float) -> float | None:
        """Give how long connecting took; a host that refuses is there, too."""
        began = time.monotonic()
        try:
            with self._dialler.dial(scope, call.host, call.port, ends_at) as found:
                return found.connect_s
        except ConnectFailed as failure:
            scope.check()
            return time.monotonic() - began if failure.reason == "connection refused" else None
        except TimedOut:
            return None


def _told(call: network.Ping, address: str, method: str, sent: int, trips: Sequence[float]) -> network.Pinged:
    mean_s = sum(trips) / len(trips) if trips else 0.0
    return network.Pinged(
        host=call.host,
        address=address,
        method=method,
        sent=sent,
        received=len(trips),
        least_s=round(min(trips, default=0.0), 6),
        mean_s=round(mean_s, 6),
        most_s=round(max(trips, default=0.0), 6),
    )

"""A connection for a probe: to an allowed port, through the judge, timed, and bounded as a whole."""

import ssl
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from socket import socket

from config.settings import port_range
from gaia.errors import EgressDenied
from tasks.egress.gateway import Gateway, wake
from tasks.scope import Scope


class Ports:
    """The ports that may be probed."""

    def __init__(self, given: Collection[str]) -> None:
        """Take ports and ranges as settings have checked them."""
        self._ranges = tuple(map(port_range, given))

    def require(self, host: str, port: int) -> None:
        """Let a port pass.

        Raises:
            EgressDenied: it is not allowed: else a probe is a port scanner.
        """
        if not any(low <= port <= high for low, high in self._ranges):
            raise EgressDenied(host, f"port {port}", "it is none of GAIA_NETWORK__PROBE_PORTS")


class Dialled:
    """An open connection, and how long its phases took. Whoever wraps `sock` puts there what it became."""

    def __init__(self, sock: socket, dns_s: float, connect_s: float) -> None:
        """Keep them, rounded to microseconds."""
        self.sock = sock
        self.address = str(sock.getpeername()[0])
        self.dns_s = round(dns_s, 6)
        self.connect_s = round(connect_s, 6)

    def wake(self) -> None:
        """End the connection under the thread that waits on it."""
        wake(self.sock)

    def close(self) -> None:
        """Close what the socket has become."""
        self.sock.close()

    def secure(self, context: ssl.SSLContext, name: str) -> ssl.SSLSocket:
        """Shake hands; the socket from before is none any more, so what breaks the connection has to know this one."""
        self.sock = sock = context.wrap_socket(
            self.sock, server_hostname=name, suppress_ragged_eofs=True, do_handshake_on_connect=False
        )
        sock.do_handshake()
        return sock


class Dialler:
    """Dials for probes. Thread-safe."""

    def __init__(self, gateway: Gateway, ports: Ports) -> None:
        """Dial through a gateway."""
        self._gateway = gateway
        self._ports = ports

    @contextmanager
    def dial(self, scope: Scope, host: str, port: int, ends_at: float) -> Iterator[Dialled]:
        """Connect, and close at the end of the block; past `ends_at`, or on a cancel, the connection breaks under it.

        The connecting includes another look into the cache of names, which has the answer unless its TTL is 0.

        Raises:
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TimedOut: as `Gateway.dial`.
        """
        self._ports.require(host, port)
        began = time.monotonic()
        self._gateway.addresses(host, port, timeout_s=scope.bound_s(ends_at - began))
        resolved = time.monotonic()
        sock = self._gateway.dial(
            host, port, timeout_s=max(0.001, scope.bound_s(ends_at - resolved)), cancelled=scope.cancelled
        )
        with ExitStack() as held:
            held.callback(sock.close)
            found = Dialled(sock, resolved - began, time.monotonic() - resolved)
            held.callback(found.close)
            yield from self._bounded(scope, found, ends_at)

    @staticmethod
    def _bounded(scope: Scope, found: Dialled, ends_at: float) -> Iterator[Dialled]:
        # A server that sends a byte now and then would never let a read of the socket time out.
        timer = threading.Timer(scope.bound_s(max(0.001, ends_at - time.monotonic())), found.wake)
        timer.daemon = True
        timer.start()
        try:
            with scope.cancelled.calling(found.wake):
                yield found
        finally:
            timer.cancel()

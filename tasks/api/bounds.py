"""Sockets that obey the call they work for.

A socket's own time-out starts anew with every byte, so a server that drips holds a reader for ever. These ask before
each wait how much is left of the whole exchange.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gaia.errors import TimedOut
from tasks.egress.gateway import wake
from tasks.scope import Scope


class Bounds:
    """The time of one exchange, and the socket that a cancel has to wake."""

    def __init__(self, scope: Scope, timeout_s: float) -> None:
        """Start the clock."""
        self.scope = scope
        self.timeout_s = timeout_s
        self._ends_at = min(scope.clock.monotonic() + timeout_s, scope.ends_at)
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None

    def left_s(self) -> float:
        """Give the seconds that the next wait may take.

        Raises:
            Cancelled, DeadlineExceeded, TimedOut: if there are none.
        """
        self.scope.check()
        left = self._ends_at - self.scope.clock.monotonic()
        if left <= 0:
            raise TimedOut(self.scope.operation, self.timeout_s)
        return left

    def renew(self) -> None:
        """Start the clock anew: the bound is of the next wait, not of the whole."""
        self._ends_at = min(self.scope.clock.monotonic() + self.timeout_s, self.scope.ends_at)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Wake the socket in hand if the call is cancelled inside the block."""
        with self.scope.cancelled.calling(self._wake):
            yield

    def hold(self, sock: socket.socket | None) -> None:
        """Take a socket in hand, or let go of the last one before others may use it."""
        with self._lock:
            self._sock = sock

    def _wake(self) -> None:
        with self._lock:
            if self._sock is not None:
                wake(self._sock)


class PlainSocket(socket.socket):
    """A TCP socket under `bounds`, which every user of the connection sets to its own."""

    bounds: Bounds

    def recv_into(self, *args: Any, **options: Any) -> int:
        """Read, within what is left."""
        self.settimeout(self.bounds.left_s())
        return super().recv_into(*args, **options)

    def sendall(self, *args: Any, **options: Any) -> None:
        """Write all of it, within what is left; the time-out of a socket bounds a `sendall` as a whole."""
        self.settimeout(self.bounds.left_s())
        super().sendall(*args, **options)


class TlsSocket(ssl.SSLSocket):
    """The same with TLS. Its `sendall` is a loop over `send`, its handshake is bounded as a whole."""

    bounds: Bounds

    def recv_into(self, *args: Any, **options: Any) -> int:
        """Read, within what is left."""
        self.settimeout(self.bounds.left_s())
        return super().recv_into(*args, **options)

    def send(self, *args: Any, **options: Any) -> int:
        """Write some, within what is left."""
        self.settimeout(self.bounds.left_s())
        return super().send(*args, **options)

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of the base
        """Shake hands, within what is left."""
        self.settimeout(self.bounds.left_s())
        super().do_handshake(block)


BoundedSocket = PlainSocket | TlsSocket

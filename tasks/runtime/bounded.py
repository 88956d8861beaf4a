"""Sockets that have one time for everything, however slowly the other end drips."""

import socket
import time
from typing import Any


class Bounded:
    """A mixin for sockets: each step has the time that is left, and not as much as the one before."""

    ends_at: float
    """By the monotonic clock."""

    def bound(self) -> None:
        """Bound the next step.

        Raises:
            TimeoutError: if no time is left.
        """
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the page took too long")
        self.settimeout(left_s)  # type: ignore[attr-defined]  # a socket's, as are the others

    def send(self, *given: Any) -> int:
        """Send what goes."""
        self.bound()
        return int(super().send(*given))  # type: ignore[misc]

    def sendall(self, *given: Any) -> None:
        """Send all of it; the socket's own timeout is for all, too."""
        self.bound()
        super().sendall(*given)  # type: ignore[misc]

    def recv_into(self, *given: Any) -> int:
        """Read what there is."""
        self.bound()
        return int(super().recv_into(*given))  # type: ignore[misc]


class BoundedSocket(Bounded, socket.socket):
    """A plain one."""

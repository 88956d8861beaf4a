"""ICMP echo requests by an unprivileged socket (Linux: `net.ipv4.ping_group_range`), RFC 792 and RFC 4443."""

import os
import select
import socket
import struct
import time
from typing import Final

from tasks.scope import Scope

_ECHO: Final = struct.Struct("!BBHHH")
_REQUEST_V4, _REPLY_V4, _REQUEST_V6, _REPLY_V6 = 8, 0, 128, 129
TOKEN_BYTES: Final = 16
LOOK_S: Final = 0.1
"""A cancel is seen after so long."""


def permitted() -> bool:
    """Say whether this process may send echo requests."""
    try:
        _open("0.0.0.0").close()  # noqa: S104 - tells the family
    except OSError:
        return False
    return True


def ping(scope: Scope, address: str, count: int, seconds: float) -> list[float]:
    """Send requests, each after the answer to the one before or its share of the time; give the round trips in seconds.

    Raises:
        OSError: this process may send none, or there is no way to the address.
        Cancelled, DeadlineExceeded: of the call.
    """
    ends_at = time.monotonic() + seconds
    found = []
    with _open(address) as sock:
        sock.settimeout(0.0)
        sock.connect((address, 0))
        for number in range(count):
            share_s = (ends_at - time.monotonic()) / (count - number)
            took_s = _round_trip(scope, sock, number, time.monotonic() + max(0.001, share_s))
            if took_s is not None:
                found.append(took_s)
    return found


def _open(address: str) -> socket.socket:
    if ":" in address:
        return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


def _round_trip(scope: Scope, sock: socket.socket, number: int, ends_at: float) -> float | None:
    is_v6 = sock.family == socket.AF_INET6
    # The kernel fills in identifier and checksum, and hands on the answers to this socket's identifier alone.
    token = os.urandom(TOKEN_BYTES)
    began = time.monotonic()
    sock.send(_ECHO.pack(_REQUEST_V6 if is_v6 else _REQUEST_V4, 0, 0, 0, number) + token)
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    while (left_s := ends_at - time.monotonic()) > 0:
        scope.check()
        if not poller.poll(min(left_s, LOOK_S) * 1000):
            continue
        try:
            reply = sock.recv(2048)
        except BlockingIOError:
            continue
        if len(reply) == _ECHO.size + TOKEN_BYTES and reply[_ECHO.size :] == token:
            kind, _, _, _, sequence = _ECHO.unpack_from(reply)
            if kind == (_REPLY_V6 if is_v6 else _REPLY_V4) and sequence == number:
                return time.monotonic() - began
    return None

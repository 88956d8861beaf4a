"""What worker, launcher and keepers say to each other: JSON objects with descriptors, over Unix sockets.

One message is one packet (SOCK_SEQPACKET, unix(7)). A large one, such as two megabytes of arguments, travels in a
memfd whose descriptor comes first.
"""

import json
import os
import socket
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

PACKET_BYTES: Final = 32 * 1024
"""Below any usual SO_SNDBUF."""
DESCRIPTORS: Final = 8

_INT_BYTES: Final = array("i").itemsize
_SPACE: Final = socket.CMSG_SPACE(DESCRIPTORS * _INT_BYTES)


class Message(NamedTuple):
    """What came: the object, and descriptors that now belong to the receiver. Empty when the other side has gone."""

    body: dict[str, Any]
    fds: tuple[int, ...] = ()


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, body: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send a message; the descriptors stay open here.

    Raises:
        OSError: if the other side has gone, or takes nothing within the socket's time-out.
    """
    text = json.dumps(body).encode("ascii")
    if len(text) <= PACKET_BYTES:
        _send(channel, text, fds)
        return
    large = os.memfd_create("gaia-message", os.MFD_CLOEXEC)
    try:
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(large, rest) :]
        _send(channel, b"", (large, *fds))
    finally:
        os.close(large)


def receive(channel: socket.socket) -> Message:
    """Take the next message.

    Raises:
        OSError: BlockingIOError if there is none on a channel that does not block.
    """
    # Not `socket.recv_fds`: its descriptors would be inherited.
    text, ancillary, _, _ = channel.recvmsg(PACKET_BYTES, _SPACE, socket.MSG_CMSG_CLOEXEC)
    fds = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    if text:
        return Message(json.loads(text), tuple(fds))
    if not fds:
        return Message({})
    with os.fdopen(fds[0], "rb") as file:
        file.seek(0)
        return Message(json.loads(file.read()), tuple(fds[1:]))


def _send(channel: socket.socket, text: bytes, fds: Sequence[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    channel.sendmsg([text], rights, socket.MSG_NOSIGNAL)

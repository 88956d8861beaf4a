"""Tell a supervisor that this process is ready, by the protocol of sd_notify(3)."""

import os
import socket
from contextlib import suppress
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = b"READY=1"


def ready() -> None:
    """Say `READY=1` to the socket that `NOTIFY_SOCKET` names, once; without one, do nothing.

    Readiness is told, not needed: a supervisor that has gone meanwhile is no error here.
    """
    address = os.environ.pop(VARIABLE, "")
    if not address:
        return
    # "@name" is the abstract namespace of unix(7), which the kernel spells with a NUL.
    name = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(READY, name)

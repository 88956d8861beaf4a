"""What the kernel offers and Python 3.11 does not: prctl(2), unshare(2), mount(2)."""

import ctypes
import os
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
"""<linux/prctl.h>"""

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000
"""<linux/sched.h>"""

MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REC: Final = 0x4000
MS_SLAVE: Final = 0x80000
"""<linux/mount.h>"""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, PR_SET_CHILD_SUBREAPER in prctl(2)."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def gain_no_privileges() -> None:
    """Let no execve(2) from here on gain privileges: children inherit it, see PR_SET_NO_NEW_PRIVS in prctl(2)."""
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def leave_network() -> None:
    """Enter a network namespace of its own, without any interface that is up.

    Raises:
        OSError: where that is not permitted.
    """
    _check(_libc.unshare(CLONE_NEWNET))


def part_children() -> None:
    """Let the next child be the first process of a PID namespace, see pid_namespaces(7).

    Where that needs a privilege this process lacks, a user namespace with the same user gives it.

    Raises:
        OSError: where neither is permitted.
    """
    try:
        _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWPID))
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID))
        # user_namespaces(7): a group map needs setgroups(2) denied first.
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            write(f"/proc/self/{name}", line)


def mount_proc() -> None:
    """Show the processes of the own PID namespace in /proc, to this mount namespace alone.

    Raises:
        OSError: as in a container that hides parts of /proc, see mount_namespaces(7).
    """
    _check(_libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None))
    _check(_libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write(path: str | os.PathLike[str], text: str) -> None:
    """Write to a file of the kernel's in one call.

    Raises:
        OSError: as the kernel refuses it.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)

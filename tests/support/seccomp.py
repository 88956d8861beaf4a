"""Run a program beneath a seccomp profile of container engines: `python -m tests.support.seccomp PROFILE PROGRAM...`.

As in a container that may gain no privileges; root becomes `nobody` first. It knows what such profiles here use:
everything allowed but named calls, perhaps by a mask over an argument.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

LIBRARY = "libseccomp.so.2"
ALLOW = 0x7FFF0000
ERRNO = 0x00050000
MASKED_EQUAL = 7
"""<seccomp.h>: SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(0), SCMP_CMP_MASKED_EQ."""

NOBODY = 65534


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def load(profile: dict[str, Any]) -> None:
    """Confine this thread, and whatever it executes, for good."""
    if profile["defaultAction"] != "SCMP_ACT_ALLOW":
        raise NotImplementedError(profile["defaultAction"])
    library = ctypes.CDLL(LIBRARY, use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ALLOW)))
    for rule in profile["syscalls"]:
        for name in rule["names"]:
            _add(library, context, name, rule)
    if library.seccomp_load(context) != 0:
        raise OSError("the profile was refused")


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, name: str, rule: dict[str, Any]) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == -1 or rule["action"] != "SCMP_ACT_ERRNO":
        raise NotImplementedError(name)
    tests = [Comparison(each["index"], MASKED_EQUAL, each["value"], each["valueTwo"]) for each in rule.get("args", ())]
    array = (Comparison * len(tests))(*tests)
    action = ctypes.c_uint32(ERRNO | rule["errnoRet"])
    if library.seccomp_rule_add_array(context, action, number, len(tests), array) != 0:
        raise ValueError(name)


def main() -> None:
    """Become the program."""
    profile, *argv = sys.argv[1:]
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    load(json.loads(Path(profile).read_text()))
    os.execvp(argv[0], argv)  # noqa: S606 - the program is the test's, and no shell is wanted


if __name__ == "__main__":
    main()

"""The ways in which limits can be held, and which of them this machine's kernel permits."""

import os
from functools import cache
from typing import NamedTuple

import pytest

from gaia.errors import GaiaError
from tasks.process.keepers import Keepers


class Mode(NamedTuple):
    enforcement: str
    pid_namespace: bool

    @property
    def options(self) -> dict[str, object]:
        return self._asdict()


MODES = [Mode(kind, namespace) for kind in ("cgroup2", "cgroup1", "sampled") for namespace in (True, False)]


@cache
def permitted(mode: Mode) -> bool:
    keepers = Keepers(enforcement=mode.enforcement, cgroup=None, pid_namespace=mode.pid_namespace)
    try:
        return keepers.holding().pid_namespace == mode.pid_namespace
    except GaiaError:
        return False
    finally:
        keepers.close()


def identify(mode: Mode) -> str:
    return f"{mode.enforcement}-{'namespace' if mode.pid_namespace else 'subreaper'}"


def require(mode: Mode) -> None:
    """Skip a test, in plain words, whose mode this kernel does not permit."""
    if not permitted(mode):
        pytest.skip(f"NOT RUN: {identify(mode)} is not permitted by the kernel of this machine ({os.uname().release})")

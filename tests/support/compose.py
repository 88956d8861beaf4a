"""docker/compose.yaml as an engine would read it, without an engine."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from tests.support.cluster import ROOT

PATH = ROOT / "docker" / "compose.yaml"

VARIABLES = {
    "CLUSTER_REDIS_PASSWORD": "0123456789abcdef" * 4,
    "CLUSTER_FLOWER_LOGIN": "me:pass",
    "CLUSTER_MONITOR_TOKEN": "fedcba9876543210" * 4,
}
"""What whoever starts it must set."""

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?P<rule>:[-?])?(?P<rest>[^}]*)\})")


class Unset(Exception):  # noqa: N818 - a finding of the interpolation
    """A required variable is not set."""


@cache
def read() -> dict[str, Any]:
    """Give the file, its variables left in place."""
    found: dict[str, Any] = yaml.safe_load(PATH.read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    """Give the services."""
    found: dict[str, dict[str, Any]] = read()["services"]
    return found


def named() -> set[str]:
    """Give the variables that the file reads."""
    return {found["name"] for found in _VARIABLE.finditer(PATH.read_text()) if found["name"]}


def environment(service: str, variables: Mapping[str, str] = VARIABLES) -> dict[str, str]:
    """Give what a container of the service has in its environment from the file."""
    return {name: interpolate(value, variables) for name, value in services()[service].get("environment", {}).items()}


def interpolate(text: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """Put variables in place, by the rules of the Compose specification for `${X:-default}`, `${X:?error}` and `$$`."""

    def value(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        given = variables.get(found["name"], "")
        if not given and found["rule"] == ":?":
            raise Unset(found["name"])
        return given or (found["rest"] if found["rule"] == ":-" else "")

    return _VARIABLE.sub(value, text)

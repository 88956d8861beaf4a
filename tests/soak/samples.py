"""What is counted: a quantity of an owner, and all quantities at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

CLUSTER = "cluster"
"""Stands for the calls of all queues together."""


class Quantity(NamedTuple):
    """`owner` is a worker by its queue, `monitor`, `up`, `redis` or `disk`."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}: {self.name}"


@dataclass(frozen=True)
class Sample:
    """`calls` are those that have ended so far, by queue."""

    calls: Mapping[str, int]
    values: Mapping[Quantity, float] = field(default_factory=dict)

    def calls_of(self, owner: str) -> int:
        """Give the calls that an owner had to do with: a worker's own, or all."""
        return self.calls.get(owner, sum(self.calls.values()))

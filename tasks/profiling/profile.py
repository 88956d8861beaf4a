"""What every profile is: stacks with numbers; profiles of several workers add up."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, NamedTuple

DEEPEST: Final = 128
"""Frames of a stack that are kept, the innermost ones."""


class Frame(NamedTuple):
    """A place in the code. `first_line` is that of the function, `line` the one that runs."""

    function: str
    file: str
    line: int
    first_line: int = 0


Stack = tuple[Frame, ...]
"""The outermost frame first."""


class Kind(NamedTuple):
    """What a number counts, as pprof names it: `cpu` in `nanoseconds`."""

    name: str
    unit: str


@dataclass
class Profile:
    """Stacks, each with a number of every kind; the last kind is the one that pictures show."""

    kinds: tuple[Kind, ...]
    seconds: float = 0.0
    stacks: dict[Stack, list[float]] = field(default_factory=dict)

    def add(self, stack: Stack, *values: float) -> None:
        """Count."""
        known = self.stacks.get(stack)
        if known is None:
            self.stacks[stack] = list(values)
        else:
            for at, value in enumerate(values):
                known[at] += value

    def json(self) -> bytes:
        """Give all of it, for `read`."""
        rows = [[stack, values] for stack, values in self.stacks.items()]
        return json.dumps({"kinds": self.kinds, "seconds": self.seconds, "stacks": rows}).encode()

    @classmethod
    def read(cls, text: bytes) -> "Profile":
        """Read what `json` gave.

        Raises:
            ValueError, KeyError, TypeError: if it is none.
        """
        given: Mapping[str, Any] = json.loads(text)
        found = cls(tuple(Kind(*each) for each in given["kinds"]), float(given["seconds"]))
        for stack, values in given["stacks"]:
            found.add(tuple(Frame(*each) for each in stack), *map(float, values))
        return found

    @classmethod
    def merged(cls, given: Iterable["Profile"]) -> "Profile":
        """Add up profiles of the same kinds.

        Raises:
            ValueError: if there is none, or their kinds differ.
        """
        found: Profile | None = None
        for other in given:
            if found is None:
                found = cls(other.kinds)
            if other.kinds != found.kinds:
                raise ValueError("these profiles count different things")
            found.seconds = max(found.seconds, other.seconds)
            for stack, values in other.stacks.items():
                found.add(stack, *values)
        if found is None:
            raise ValueError("there is no profile")
        return found


def stack_of(frame: FrameType | None) -> Stack:
    """Give the stack of a thread's frame."""
    found: list[Frame] = []
    while frame is not None and len(found) < DEEPEST:
        code = frame.f_code
        found.append(Frame(code.co_qualname, code.co_filename, frame.f_lineno or 0, code.co_firstlineno))
        frame = frame.f_back
    return tuple(reversed(found))

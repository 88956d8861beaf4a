"""Show the lines of several programs in one stream, each with the name of its program before it."""

import os
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

LINE_LIMIT_BYTES: Final = 64 * 1024
"""A longer line is shown in pieces."""

_COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Foreground colours of ECMA-48 (SGR), without red, which reads as an error."""

_CONTROLS: Final = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)))
"""All but the tab: text that came over the network must not steer the terminal."""


def plain(text: str) -> str:
    """Give a text without what could steer a terminal; line ends become blanks."""
    return text.replace("\n", " ").translate(_CONTROLS)


class Output:
    """One stream, and how a line of a program looks in it."""

    def __init__(self, stream: TextIO | None = None, *, width: int = 0) -> None:
        """Write to a stream, standard output by default; names are padded to `width` characters."""
        self._stream = stream or sys.stdout
        self._width = width
        self._names: list[str] = []
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"  # https://no-color.org
        self._coloured = self._stream.isatty() and not plain

    def line(self, name: str, text: str) -> None:
        """Show one line of a program."""
        self._write(f"{self._label(name)} {text.translate(_CONTROLS)}\n")

    def say(self, text: str) -> None:
        """Show text of our own."""
        self._write(f"{text}\n")

    def _label(self, name: str) -> str:
        label = f"{name:<{self._width}} |"
        if not self._coloured:
            return label
        if name not in self._names:
            self._names.append(name)
        colour = _COLOURS[self._names.index(name) % len(_COLOURS)]
        return f"\x1b[{colour}m{label}\x1b[0m"

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # Whoever read it has gone. The programs have not, so the work goes on unseen.
            self._stream = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the rest of the process's life


class Lines:
    """Cuts the bytes that come out of a pipe into lines."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Give the lines that are complete now."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) >= LINE_LIMIT_BYTES:
            whole, self._rest = [*whole, self._rest], b""
        return [each.decode("utf-8", "replace").rstrip("\r") for each in whole]

    def flush(self) -> list[str]:
        """Give the last line, which lacks its end."""
        return self.feed(b"\n") if self._rest else []


def moment(at: float) -> str:
    """Write a Unix time."""
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds")

"""What is kept of a program's output, in memory and bounded; counted to the last byte."""

from dataclasses import dataclass, field
from typing import Final

_SLACK_BYTES: Final = 1 << 16
"""How far a tail may outgrow its capacity before it is cut: so that not every chunk moves all of it."""


@dataclass
class Capture:
    """Output of one stream: its first bytes or, as a `tail`, its last ones."""

    capacity_bytes: int
    tail: bool = False
    total_bytes: int = 0
    ended: bool = False
    _kept: bytearray | bytes = field(default_factory=bytearray)

    def take(self, chunk: bytes) -> None:
        """Keep what is to be kept of a chunk."""
        kept = self._kept
        if isinstance(kept, bytes):
            return  # settled
        self.total_bytes += len(chunk)
        if not self.tail:
            kept += chunk[: self.capacity_bytes - len(kept)]
            return
        kept += chunk
        if len(kept) > self.capacity_bytes + _SLACK_BYTES:
            del kept[: len(kept) - self.capacity_bytes]

    def settle(self) -> bytes:
        """Take no more, and give what is kept: one copy, shared with whoever asks later."""
        self._kept = self.body()
        return self._kept

    @property
    def truncated(self) -> bool:
        """Say whether there was more than is kept."""
        return self.total_bytes > self.capacity_bytes

    def body(self) -> bytes:
        """Give what is kept, at most the capacity."""
        return bytes(self._kept[-self.capacity_bytes :] if self.tail else self._kept)

    def since(self, offset: int, most_bytes: int) -> tuple[int, bytes]:
        """Give bytes from an offset on, or from the first that is kept; and the offset of the first given."""
        first = self.total_bytes - len(self._kept) if self.tail else 0
        start = min(max(offset, first), self.total_bytes)
        return start, bytes(self._kept[start - first : start - first + most_bytes])

    def last_line(self, most_bytes: int = 200) -> str:
        """Give the end of the last line that is not empty, whatever its encoding."""
        lines = bytes(self._kept[-most_bytes:]).rstrip().splitlines()
        return lines[-1].decode("utf-8", "replace") if lines else ""

"""Fetched messages on their way to kombu."""

from collections import deque
from typing import Any

Arrival = tuple[str, dict[str, Any]]
"""A queue and a message."""


class Arrivals:
    """What was fetched and not delivered yet, first come first. A suspect waits until `release`.

    It may kill this worker at its first step. What was fetched beside it and put off for its sake is held here until
    that is committed: were the suspect delivered before, they would lose a worker with it, and be taken for killers.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._ready: deque[Arrival] = deque()
        self._suspects: list[Arrival] = []

    def __bool__(self) -> bool:
        """Say whether something may be delivered."""
        return bool(self._ready)

    def add(self, queue: str, message: dict[str, Any], *, is_suspect: bool) -> None:
        """Take a message."""
        (self._suspects if is_suspect else self._ready).append((queue, message))

    def release(self) -> None:
        """Let the suspects go: what was put off for them is committed."""
        self._ready.extend(self._suspects)
        self._suspects.clear()

    def pop(self) -> Arrival:
        """Give what is delivered next."""
        return self._ready.popleft()

    def clear(self) -> list[str]:
        """Forget all; give their tags."""
        self.release()
        tags = [message["properties"]["delivery_tag"] for _, message in self._ready]
        self._ready.clear()
        return tags

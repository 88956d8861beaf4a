"""What a test looks for outside: how often a call started, and whether anything is held."""

from pathlib import Path

import redis

from gaia.store import keys


def started(marks: tuple[str, str]) -> int:
    """Count the starts of `probe.hold`, which adds a letter to its first file at each."""
    path = Path(marks[0])
    return len(path.read_text()) if path.exists() else 0


def nothing_held(client: "redis.Redis") -> bool:
    """Say whether no message is held, and no record of one is left."""
    return not any(client.exists(each) for each in ("unacked", "unacked_index", keys.HELD))

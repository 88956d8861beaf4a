"""What lies in the cluster's directories: files by their directory, what is random in a name struck out."""

import os
import re
from collections import Counter
from pathlib import Path

from tests.soak.samples import Quantity

PLACES = ("tmp", "state", "files")
CONTENTS = ("gaia-browser-",)
"""Directories that count as one thing: what Chromium keeps in its profile is its own affair, until it is removed."""

_RANDOM = re.compile(r"(?<=[-_.])[A-Za-z0-9_]{6,}$|[0-9a-f]{8,}|^[0-9a-f]{2}$|\d+")


def look(directory: Path) -> dict[Quantity, float]:
    """Count the entries."""
    found: Counter[str] = Counter()
    for place in PLACES:
        for folder, folders, files in os.walk(directory / place):
            shown = Path(folder).relative_to(directory)
            for name in (*folders, *files):
                found["/".join(map(struck, (*shown.parts, name)))] += 1
            folders[:] = [each for each in folders if not each.startswith(CONTENTS)]
    return {Quantity("disk", name): float(count) for name, count in found.items()}


def struck(name: str) -> str:
    """Strike out what is random, or a number."""
    return _RANDOM.sub("*", name)

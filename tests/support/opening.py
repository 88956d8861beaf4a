"""Opening a page in headless Chromium, its scripts run."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from config.settings import read
from tasks.browser import chromium

PATIENCE_MS = 15_000
"""Of the page's own time, which does not pass while it waits for an answer."""


@dataclass(frozen=True)
class Opened:
    """What became of a page, and what its console said."""

    dom: str
    console: tuple[str, ...]


def opened(url: str, folder: Path, *options: str) -> Opened:
    """Open a page; the folder takes the browser's profile."""
    user = [] if os.geteuid() else ["--no-sandbox"]
    command = [
        str(chromium.find(read().browser.chromium)),
        "--headless",
        "--disable-gpu",
        "--dump-dom",
        *user,
        *options,
    ]
    own = [f"--virtual-time-budget={PATIENCE_MS}", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"]
    done = subprocess.run([*command, *own, url], capture_output=True, text=True, timeout=60, check=True)
    return Opened(done.stdout, tuple(re.findall(r"CONSOLE.*", done.stderr)))

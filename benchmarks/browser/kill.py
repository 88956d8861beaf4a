"""Rounds of open, act, SIGKILL of the worker at a random instant: what is left 5 s later.

`.venv/bin/python benchmarks/browser/kill.py --rounds 100`, about four seconds a round.
"""

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from gaia import Gaia, browser  # noqa: E402 - beside this file
from gaia.errors import GaiaError  # noqa: E402
from tests.support.cluster import valkey, worker  # noqa: E402

LEFT_S = 5.0


def processes(folder: Path) -> list[int]:
    """Give the processes that know of a profile in the folder, a dead one that nobody collected not among them."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if each.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in each.cmdline()):
                found.append(each.pid)
    return found


def work(url: str) -> None:
    """Open sessions and act until the worker is gone."""
    with suppress(GaiaError), Gaia(url) as gaia:
        while True:
            session = gaia.submit(browser.Open()).get(timeout=4).id
            gaia.submit(browser.Evaluate(session, "document.title = 1")).get(timeout=4)
            gaia.submit(browser.Capture(html="<p>x")).get(timeout=4)


def main() -> None:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    left_processes = left_profiles = seen = 0
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as profiles, valkey(Path(data)) as url:
        folder = Path(profiles)
        folder.chmod(0o711)
        for _ in range(rounds):
            with worker(url, "browser", log=Path(data) / "log", TMPDIR=profiles) as running:
                thread = threading.Thread(target=work, args=(url,))
                thread.start()
                begun_by = time.monotonic() + LEFT_S
                while time.monotonic() < begun_by and not processes(folder):
                    time.sleep(0.02)
                time.sleep(random.uniform(0.0, 1.5))  # noqa: S311 - an instant by chance
                seen += bool(processes(folder))
                running.process.send_signal(signal.SIGKILL)
                ends_at = time.monotonic() + LEFT_S
                while time.monotonic() < ends_at and (processes(folder) or list(folder.iterdir())):
                    time.sleep(0.05)
                left_processes += len(processes(folder))
                left_profiles += len(list(folder.iterdir()))
                thread.join(30)
    print(f"{rounds} rounds, Chromium running at the kill in {seen}:")
    print(f"{left_processes} processes, {left_profiles} profiles left")


if __name__ == "__main__":
    main()

"""Prometheus and promtool: those on the PATH, else Debian's, unpacked beside the virtual environment.

`python -m tests.support.prometheus` fetches them; nothing is installed on the machine, and no service is started.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.cluster import ROOT

FOLDER = ROOT / ".venv" / "prometheus"
PACKAGE = "prometheus"


def program(name: str) -> Path | None:
    """Give `prometheus` or `promtool`, None if this machine has none."""
    own = FOLDER / "usr" / "bin" / name
    found = shutil.which(name)
    return Path(found) if found else own if own.exists() else None


def fetch() -> str:
    """Fetch the package unless both are there; say what became of it."""
    if program("promtool") and program("prometheus"):
        return "Prometheus is there"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "NOT FETCHED: no apt-get here; tests of alerts are skipped unless promtool is on the PATH"
    with tempfile.TemporaryDirectory() as folder:
        for attempt in ((), ("update",)):
            if attempt:
                subprocess.run(["apt-get", *attempt], capture_output=True, check=False, timeout=300)
            subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, check=False, timeout=600)
            for package in Path(folder).glob("*.deb"):
                FOLDER.mkdir(parents=True, exist_ok=True)
                subprocess.run(["dpkg-deb", "-x", package, FOLDER], check=True, timeout=300)
                return f"Prometheus lies in {FOLDER}"
    return "NOT FETCHED: apt-get could not download it; tests of alerts are skipped"


if __name__ == "__main__":
    print(fetch())  # noqa: T201 - a command
    sys.exit(0)

"""Programs that only tests need: those on the PATH, else Debian's, unpacked beside the virtual environment.

`python -m tests.support.debian` fetches them; nothing is installed on the machine, and no service is started.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.cluster import ROOT

FOLDER = ROOT / ".venv" / "debian"

PROMETHEUS = {"prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool"}
PPROF = {"pprof": "usr/lib/go-*/pkg/tool/*/pprof"}
"""What `go tool pprof` runs."""


def program(name: str) -> Path | None:
    """Give `prometheus`, `promtool` or `pprof`; None if this machine has none."""
    found = shutil.which(name)
    if found:
        return Path(found)
    return next(iter(sorted(FOLDER.glob({**PROMETHEUS, **PPROF}[name]))), None)


def fetch(wanted: dict[str, str], package: str) -> str:
    """Fetch a package's programs unless they are there; say what became of it."""
    names = ", ".join(wanted)
    if all(map(program, wanted)):
        return f"{names}: there"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return f"{names}: NOT FETCHED, there is no apt-get here; tests that need them are skipped"
    with tempfile.TemporaryDirectory() as folder:
        for update in (False, True):
            if update:
                _ran("apt-get", "update", folder=folder)
            _ran("apt-get", "download", package, folder=folder)
            for each in Path(folder).glob("*.deb"):
                _unpack(each, list(wanted.values()))
                return f"{names}: fetched from {package}"
    return f"{names}: NOT FETCHED, apt-get could not download {package}; tests that need them are skipped"


def go_package() -> str:
    """Name the package that has Go's tools: `golang-go` only depends on it."""
    found = re.search(r"Depends: (golang-\d[\d.]*-go)", _ran("apt-cache", "depends", "golang-go", folder="/"))
    return found[1] if found else "golang-go"


def _unpack(package: Path, members: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    wanted = [f"./{each}" for each in members]
    subprocess.run(["tar", "-x", "--wildcards", "-C", FOLDER, *wanted], stdin=archive.stdout, check=True, timeout=300)
    archive.communicate(timeout=300)


def _ran(*argv: str, folder: str) -> str:
    try:
        return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=600).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


if __name__ == "__main__":
    print(fetch(PROMETHEUS, "prometheus"))  # noqa: T201 - a command
    print(fetch(PPROF, go_package() if shutil.which("apt-cache") else "golang-go"))  # noqa: T201 - a command

"""A producer's own virtual environment: the wheel of `gaia-client` and what it asks for, nothing else.

It is made from what this environment has installed, so it needs no internet.
"""

import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
BUILD_BOUND_S = 60.0


def producer(directory: Path) -> Path:
    """Make the environment; give its interpreter."""
    venv.create(directory / "venv", with_pip=False, symlinks=True)
    (site,) = (directory / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel(ROOT / "client", directory)) as archive:
        archive.extractall(site)
    (client,) = distributions(path=[str(site)])
    for each in _closure(client):
        _copy(each, site)
    return directory / "venv" / "bin" / "python"


def wheel(project: Path, directory: Path) -> Path:
    """Build the wheel of a project."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=BUILD_BOUND_S)
    (found,) = directory.glob("*.whl")
    return found


def _closure(root: Distribution) -> Iterator[Distribution]:
    """Give everything that a distribution needs here, itself excluded."""
    seen = {(canonicalize_name(root.name), "")}
    heap = [(root, "")]
    while heap:
        found, extra = heap.pop()
        for requirement in map(Requirement, found.requires or ()):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            needed = distribution(requirement.name)
            name = canonicalize_name(needed.name)
            if (name, "") not in seen:
                yield needed
            news = {(name, each) for each in ("", *requirement.extras)} - seen
            seen |= news
            heap.extend((needed, each) for _, each in news)


def _copy(found: Distribution, site: Path) -> None:
    for file in found.files or ():
        # Scripts lie outside of site-packages; byte code names the directory it was made in.
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)

"""Finding a Chromium on this machine, and installing one where there is none."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from gaia.errors import InvalidSetting, NotConfigured

SETTING: Final = "GAIA_BROWSER__CHROMIUM"
INSTALL_S: Final = 1800.0

# The headless shell first: it starts five times as fast and takes a third of the memory.
NAMES: Final = (
    "chromium-headless-shell",
    "headless_shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
# Branded builds take no unpacked extensions from the protocol since version 137.
FULL_NAMES: Final = ("chromium", "chromium-browser")
FULL_SETTING: Final = "GAIA_BROWSER__FULL_CHROMIUM"
_PLAYWRIGHT_NAMES: Final = ("headless_shell", "chrome-headless-shell", "chrome")
_PACKAGES: Final = ("chromium-headless-shell", "chromium")
# Without a font Chromium draws no letters; these have the shapes and widths that most pages ask for.
_FONTS: Final = ("fonts-dejavu-core", "fonts-liberation")

Say = Callable[[str], None]


def program(name: str) -> Path | None:
    """Give the path of a program that is named by its path or found on the PATH, None if there is none."""
    found = shutil.which(name)
    return None if found is None else Path(found)


def find(setting: str | None) -> Path:
    """Give the path of the browser: the setting, else the first found of the usual places.

    Raises:
        NotConfigured: if there is none.
        InvalidSetting: if the setting names none.
    """
    for found in filter(None, map(program, NAMES if setting is None else (setting,))):
        return found
    if setting is not None:
        raise _no_program(SETTING, setting, "make setup")
    for found in _of_playwright(Path.home() / ".cache" / "ms-playwright"):
        return found
    raise NotConfigured(SETTING, "this machine has no Chromium: run `make setup`, which installs one")


def find_full(setting: str | None) -> Path:
    """Give the path of a Chromium that can load extensions, which the headless shell cannot.

    Raises:
        NotConfigured: if there is none.
        InvalidSetting: if the setting names none.
    """
    for found in filter(None, map(program, FULL_NAMES if setting is None else (setting,))):
        return found
    if setting is not None:
        raise _no_program(FULL_SETTING, setting, "gaia chromium --install --full")
    raise NotConfigured(FULL_SETTING, "this machine has no full Chromium: run `gaia chromium --install --full`")


def _no_program(setting: str, given: str, command: str) -> InvalidSetting:
    return InvalidSetting(setting, f"is {given!r}, which is no program: name another, or unset it and run `{command}`")


def install_full(say: Say) -> Path:
    """Give the path of a full Chromium, installed with apt-get if there is none.

    Raises:
        NotConfigured: if that failed.
    """
    with suppress(NotConfigured):
        return find_full(None)
    if _with_apt(say, _PACKAGES[1:]):
        with suppress(NotConfigured):
            return find_full(None)
    command = f"apt-get update && apt-get install -y {_PACKAGES[1]}"
    raise NotConfigured(
        FULL_SETTING,
        f"a full Chromium could not be installed. On Debian or Ubuntu type, as root: {command}. "
        f"Elsewhere install Chromium, and set {FULL_SETTING} to its path unless it is on the PATH",
    )


def install(say: Say) -> Path:
    """Give the path of the browser, installed if there is none.

    Raises:
        NotConfigured: if that failed, with the command to type.
    """
    with suppress(NotConfigured):
        return find(None)
    for way in (_with_apt, _with_playwright):
        if way(say):
            with suppress(NotConfigured):
                return find(None)
    command = f"apt-get update && apt-get install -y {_PACKAGES[0]} {' '.join(_FONTS)}"
    raise NotConfigured(
        SETTING,
        f"Chromium could not be installed. On Debian or Ubuntu type, as root: {command}. "
        f"Elsewhere install Chromium or Chrome, and set {SETTING} to its path unless it is on the PATH",
    )


def _of_playwright(cache: Path) -> list[Path]:
    # Folders end in the build number, so the last is the newest.
    found = [each for name in _PLAYWRIGHT_NAMES for each in sorted(cache.glob(f"**/{name}"), reverse=True)]
    return [each for each in found if each.is_file() and os.access(each, os.X_OK)]


def _with_apt(say: Say, packages: Sequence[str] = _PACKAGES) -> bool:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return False
    say(f"installing {packages[0]} with apt-get (about 100 MB)")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    # Lists that are old or partly out of reach may still do.
    _ran([apt, "update"], quiet)
    options = ["-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    return any(_ran([apt, "install", *options, each, *_FONTS], quiet) for each in packages)


def _with_playwright(say: Say) -> bool:
    say("downloading Chromium with Playwright (about 100 MB)")
    # Playwright itself is only needed to download; the browser goes to its cache.
    with tempfile.TemporaryDirectory(prefix="gaia-playwright-") as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        if not _ran([*pip, "install", "--target", folder, "playwright"], {}):
            return False
        command = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
        return _ran(command, {"PYTHONPATH": folder})


def _ran(argv: list[str], variables: Mapping[str, str]) -> bool:
    """Run a program silently to its end; say whether it went well."""
    try:
        done = subprocess.run(  # noqa: S603 - argv is made here
            argv,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=INSTALL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0

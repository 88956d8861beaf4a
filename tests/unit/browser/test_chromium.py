import os
import sys
from pathlib import Path

import pytest

from gaia.errors import InvalidSetting, NotConfigured
from tasks.browser import chromium

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="apt-get installs for root alone")


def program(path: Path, script: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has one folder of programs, an empty home, and a Python that can do nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "python", "exit 1")))
    return folder


def test_the_setting_wins(folder: Path, tmp_path: Path) -> None:
    program(folder / "chromium")
    chosen = program(tmp_path / "elsewhere" / "mine")
    assert chromium.find(str(chosen)) == chosen


def test_the_setting_may_be_a_name_on_the_path(folder: Path) -> None:
    assert chromium.find(str(program(folder / "mine").name)) == folder / "mine"


@pytest.mark.parametrize("setting", ["/no/such/file", "nothing", ""])
def test_a_setting_that_names_nothing_is_told_and_nothing_else_taken(folder: Path, setting: str) -> None:
    program(folder / "chromium")
    with pytest.raises(InvalidSetting, match=r"GAIA_BROWSER__CHROMIUM is '.*', which is no program: .*`make setup`"):
        chromium.find(setting)
    with pytest.raises(InvalidSetting, match=r"GAIA_BROWSER__FULL_CHROMIUM is '.*', which is no program: .*--full`"):
        chromium.find_full(setting)


def test_a_file_that_cannot_be_run_is_no_browser(folder: Path) -> None:
    (folder / "chromium").write_text("")
    with pytest.raises(NotConfigured):
        chromium.find(None)


def test_the_headless_shell_is_preferred(folder: Path) -> None:
    for name in reversed(chromium.NAMES):
        program(folder / name)
        assert chromium.find(None) == folder / name


def test_playwrights_newest_is_the_last_resort(tmp_path: Path, folder: Path) -> None:
    cache = tmp_path / "home" / ".cache" / "ms-playwright"
    program(cache / "chromium-1200" / "chrome-linux" / "chrome")
    program(cache / "chromium_headless_shell-1199" / "chrome-linux" / "headless_shell")
    newest = program(cache / "chromium_headless_shell-1200" / "chrome-linux" / "headless_shell")
    assert chromium.find(None) == newest
    program(folder / "google-chrome")
    assert chromium.find(None) == folder / "google-chrome"


def test_a_machine_without_one_is_told_the_mend() -> None:
    with pytest.raises(NotConfigured) as caught:
        chromium.find(None)
    assert "make setup" in caught.value.reason


def test_what_is_there_is_not_installed_again(folder: Path) -> None:
    said: list[str] = []
    found = program(folder / "chromium")
    assert chromium.install(said.append) == found
    assert said == []


@as_root
def test_apt_installs_the_headless_shell(folder: Path) -> None:
    said: list[str] = []
    log = folder / "log"
    program(
        folder / "apt-get",
        f'echo "$DEBIAN_FRONTEND $*" >> {log}\n'
        f'case "$*" in install*) echo > {folder}/chromium-headless-shell; '
        f"/bin/chmod 755 {folder}/chromium-headless-shell;; esac",
    )
    assert chromium.install(said.append) == folder / "chromium-headless-shell"
    update, install = log.read_text().splitlines()
    assert update == "noninteractive update"
    assert install.startswith("noninteractive install -y --no-install-recommends ")
    assert "fonts-" in install
    assert len(said) == 1


@as_root
def test_apt_takes_the_full_chromium_where_there_is_no_shell(folder: Path) -> None:
    program(
        folder / "apt-get",
        f'case "$*" in *headless-shell*) exit 100;; '
        f"install*) echo > {folder}/chromium; /bin/chmod 755 {folder}/chromium;; esac",
    )
    assert chromium.install(lambda _: None) == folder / "chromium"


def test_playwright_is_tried_where_apt_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    target = tmp_path / "home" / ".cache" / "ms-playwright" / "chromium_headless_shell-1" / "headless_shell"
    python = program(
        tmp_path / "python3",
        f'case "$*" in *"playwright install --only-shell chromium")\n'
        f"/bin/mkdir -p {target.parent}; echo > {target}; /bin/chmod 755 {target}; "
        f'echo "$PYTHONPATH" > {folder}/seen;; esac',
    )
    monkeypatch.setattr(sys, "executable", str(python))
    assert chromium.install(lambda _: None) == target
    packages = (folder / "seen").read_text().strip()
    assert packages
    assert not Path(packages).exists()


@pytest.mark.parametrize("has_apt", [True, False])
def test_a_failed_installation_names_the_command_to_type(folder: Path, has_apt: bool) -> None:
    if has_apt:
        program(folder / "apt-get", "echo E: no network >&2; exit 100")
    with pytest.raises(NotConfigured) as caught:
        chromium.install(lambda _: None)
    assert "apt-get update && apt-get install -y chromium-headless-shell" in str(caught.value)


@as_root
def test_apt_installs_the_full_chromium_beside_a_headless_shell(folder: Path) -> None:
    program(folder / "chromium-headless-shell")
    program(
        folder / "apt-get",
        f'case "$*" in *headless-shell*) exit 100;; '
        f"install*) echo > {folder}/chromium; /bin/chmod 755 {folder}/chromium;; esac",
    )
    assert chromium.install_full(lambda _: None) == folder / "chromium"


def test_a_full_chromium_that_cannot_be_installed_names_the_command_to_type(folder: Path) -> None:
    program(folder / "apt-get", "exit 100")
    with pytest.raises(NotConfigured) as caught:
        chromium.install_full(lambda _: None)
    assert caught.value.setting == "GAIA_BROWSER__FULL_CHROMIUM"
    assert "apt-get install -y chromium" in str(caught.value)

"""What the settings of the browser queue name has to be there when a worker starts."""

import os
from pathlib import Path

import pytest

from config.settings import Browser
from gaia.errors import InvalidSetting
from tasks.browser import preflight


@pytest.mark.parametrize("field", ["chromium", "full_chromium"])
def test_a_program_that_is_not_there_is_refused_by_its_setting(field: str, tmp_path: Path) -> None:
    (tmp_path / "no-program").write_text("")
    for path in (tmp_path / "none", tmp_path / "no-program"):
        with pytest.raises(InvalidSetting) as caught:
            preflight.require(Browser(**{field: str(path)}))
        told = f"GAIA_BROWSER__{field.upper()} names {str(path)!r}, which is no program on this machine"
        assert str(caught.value) == told


@pytest.mark.skipif(os.geteuid() != 0, reason="only a worker that runs as root changes the user")
def test_a_user_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="GAIA_BROWSER__USER names 'nosuch'"):
        preflight.require(Browser(user="nosuch"))


def test_what_is_there_passes_by_its_path_and_by_its_name() -> None:
    preflight.require(Browser(chromium="/bin/true", full_chromium="true"))
    assert preflight.warning(Browser(chromium="/bin/true")) == ""


def test_a_chromium_that_is_not_named_may_come_later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    preflight.require(Browser())
    assert "gaia chromium --install" in preflight.warning(Browser())

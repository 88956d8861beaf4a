"""Every variable that the documentation, the scripts and the compose file name is a setting."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import PREFIX, Settings, variables
from tests.support.cluster import ROOT

PLACES = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Makefile",
    "Procfile",
    "docs/*.md",
    "docker/*",
    "config/**/*",
)
"""Not CHANGELOG.md, which names settings that are gone."""

NO_SETTINGS = {
    "GAIA_X": "stands for a misspelt name",
    "GAIA_Y": "stands for the name that is meant",
}

_NAME = re.compile(rf"\b{PREFIX}[A-Z0-9_]*")


def places() -> list[Path]:
    found = {each for pattern in PLACES for each in ROOT.glob(pattern) if each.suffix != ".pyc" and each.is_file()}
    return sorted(found - {ROOT / "CHANGELOG.md"})


def unknown(text: str) -> Iterator[str]:
    """Give the names that are neither a setting nor the beginning of some, as `GAIA_LIMITS__...` is."""
    sections = {PREFIX + each.upper() for each in Settings.model_fields}
    for name in _NAME.findall(text):
        beginning = name.endswith("_") and any(each.startswith(name) for each in variables())
        if name not in variables() and name not in sections | NO_SETTINGS.keys() and not beginning:
            yield name


@pytest.mark.parametrize("place", places(), ids=lambda each: str(each.relative_to(ROOT)))
def test_a_variable_that_is_named_is_a_setting(place: Path) -> None:
    assert sorted(set(unknown(place.read_text()))) == []


def test_what_is_listed_as_no_setting_is_none_and_is_named_somewhere() -> None:
    named = {each for place in places() for each in _NAME.findall(place.read_text())}
    assert NO_SETTINGS.keys() <= named
    assert not NO_SETTINGS.keys() & variables().keys()

"""Settings are frozen, complete without an environment, and name their units."""

from types import NoneType
from typing import get_args

import pytest

from config.section import Section
from config.settings import Settings, read


@pytest.mark.parametrize(
    "section", [kind for kind in Section.__subclasses__() if kind.__module__.startswith("config.")]
)
def test_a_section_is_frozen_and_part_of_the_settings(section: type[Section]) -> None:
    assert section.model_config["frozen"] is True
    assert section.model_config["extra"] == "forbid"
    sections = [field.annotation for field in Settings.model_fields.values()]
    inside = [
        kind
        for each in sections
        if isinstance(each, type) and issubclass(each, Section)
        for field in each.model_fields.values()
        for kind in get_args(field.annotation)
    ]
    assert section in [*sections, *inside]


def test_an_empty_environment_is_a_configuration() -> None:
    assert read({}) == Settings()


def test_a_duration_or_size_names_its_unit() -> None:
    for section in Section.__subclasses__():
        for name, field in section.model_fields.items():
            kinds = {field.annotation, *get_args(field.annotation)} - {NoneType}
            if float in kinds:
                assert name.endswith(("_s", "_per_s", "_bytes"))

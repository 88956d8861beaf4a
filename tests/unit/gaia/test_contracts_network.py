"""Names."""

from typing import Any

import pytest

from gaia.contracts.network import NAME_LIMIT, Resolve
from gaia.errors import InvalidCall


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\nb", "a\rb", "\0", "a" * (NAME_LIMIT + 1), "\ud800", None, b"a"])
def test_a_name_is_no_url_and_no_line(name: Any) -> None:
    with pytest.raises(InvalidCall) as caught:
        Resolve(name)
    assert caught.value.field == "name"


@pytest.mark.parametrize("type_", ["a", "MX", "", None, 1])
def test_a_type_is_one_of_the_list(type_: Any) -> None:
    with pytest.raises(InvalidCall) as caught:
        Resolve("a.example", type_).fields_json()
    assert caught.value.field == "type"

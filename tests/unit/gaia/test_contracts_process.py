"""Programs."""

from typing import Any

import pytest

from gaia.contracts.process import Limits, Run
from gaia.errors import InvalidCall


def refused(*argv: Any, **fields: Any) -> str:
    with pytest.raises(InvalidCall) as caught:
        Run(argv or ("/bin/true",), **fields).fields_json()
    return caught.value.field


@pytest.mark.parametrize(
    "argv", [("true",), ("",), ("./x",), ("/bin/x", "a\0b"), ("/bin/x", 1), ("/bin/x", None), ("/bin/x", b"x")]
)
def test_argv_starts_with_an_absolute_path_and_holds_text(argv: tuple[Any, ...]) -> None:
    assert refused(*argv).startswith("argv")


@pytest.mark.parametrize("argv", [(), [], "/bin/true", None, 5, {"a": 1}])
def test_argv_is_an_array(argv: Any) -> None:
    with pytest.raises(InvalidCall) as caught:
        Run(argv).fields_json()
    assert caught.value.field == "argv"


@pytest.mark.parametrize(
    "env", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "x\0"}, {"A": 1}, {1: "x"}, [("A", "x")], "A=x"]
)
def test_env_names_variables(env: Any) -> None:
    assert refused(env=env).startswith("env")


@pytest.mark.parametrize(
    "limits", [Limits(memory_bytes=0), Limits(output_bytes=-1), Limits(memory_bytes=True), None, {}]
)
def test_limits_are_positive(limits: Any) -> None:
    assert refused(limits=limits).startswith("limits")
